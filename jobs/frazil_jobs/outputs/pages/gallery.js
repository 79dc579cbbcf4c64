const box = document.getElementById("filter");
const tiles = [...document.querySelectorAll("figure")];
const count = document.getElementById("count");
box.addEventListener("input", () => {
  const words = box.value.toLowerCase().split(/\s+/).filter(Boolean);
  let shown = 0;
  for (const tile of tiles) {
    const text = tile.textContent.toLowerCase();
    tile.hidden = !words.every((word) => text.includes(word));
    shown += tile.hidden ? 0 : 1;
  }
  count.textContent = words.length ? `${shown} of ${tiles.length} on this page` : "";
});
