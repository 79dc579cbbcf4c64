"""Starts the ranks of one node, watches them, and waits for the uploader: what generation and training share.

It loads no torch: it costs nothing beside the ranks, and goes on when they have ended, until the uploader has stored what
they made. It ends with 0 only when every entry of the spool is acknowledged.
"""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Final

from frazil_jobs.base import parent
from frazil_jobs.base.exits import DATAERR, OK, TEMPFAIL, BadConfiguration, FrazilError
from frazil_jobs.base.log import configure, get_logger
from frazil_jobs.launching.failures import Verdict
from frazil_jobs.launching.settings import LauncherSettings, RankSettings, cores_here, rank_environ
from frazil_jobs.launching.supervise import RankProcess, StopRequest, Words, supervise
from frazil_jobs.outputs.spool import Spool

NEWS_SECONDS: Final = 30.0
"""Between two words on what is waited for."""
SHOWN_REFUSALS: Final = 5
RUN_FOLDER: Final = "run"
"""Below the spool: one folder a start, gone after it."""

log = get_logger(__name__)


def launch(
    component: str,
    module: str,
    ranks_of: Callable[[LauncherSettings], int],
    words: Words,
    environ: Mapping[str, str] | None = None,
) -> int:
    """Run the ranks of this node: the `main` of a launcher. Returns the exit code; what a person has to know is the last
    thing on stderr.

    `module` is what a rank runs, `ranks_of` tells how many the job wants here.
    """
    environ = os.environ if environ is None else environ
    configure(component)
    if parent.PARENT_VARIABLE in environ:
        parent.die_with_parent()
    try:
        verdict = run(LauncherSettings.from_environ(environ), environ, module, ranks_of, words)
    except FrazilError as error:
        verdict = Verdict(exit_code=error.exit_code, text=str(error))
    if verdict.text:
        sys.stdout.flush()
        print(verdict.text, file=sys.stderr, flush=True)
    return verdict.exit_code


def run(
    settings: LauncherSettings,
    environ: Mapping[str, str],
    module: str,
    ranks_of: Callable[[LauncherSettings], int],
    words: Words,
) -> Verdict:
    """Start the ranks, wait for them, then for the uploader."""
    require_writable(settings.spool)
    stop = StopRequest(settings.grace_seconds)
    stop.install()
    local_ranks = settings.ranks or ranks_of(settings)
    folder = settings.spool / RUN_FOLDER
    shutil.rmtree(folder, ignore_errors=True)  # of a start that was killed
    folder.mkdir()
    run_folder = Path(tempfile.mkdtemp(dir=folder))
    try:
        ranks = start_ranks(settings, environ, run_folder, local_ranks, module)
        verdict = supervise(ranks, run_folder, stop, words)
    finally:
        shutil.rmtree(run_folder, ignore_errors=True)
        shutil.rmtree(scratch_of(run_folder), ignore_errors=True)
    if verdict.exit_code in (OK, DATAERR):
        return drain(Spool(settings.spool), verdict, settings.drain_seconds, stop)
    return verdict


def scratch_of(run_folder: Path) -> Path:
    """A folder for what one start may make again, such as decoded data: outside of the spool, whose size is bounded."""
    return Path(tempfile.gettempdir()) / f"frazil-{os.getuid()}-{run_folder.name}"


def require_writable(spool: Path) -> None:
    """Raise BadConfiguration when the spool isn't a folder that this process can write to."""
    try:
        with tempfile.TemporaryFile(dir=spool):
            pass
    except OSError as error:
        raise BadConfiguration(
            f"can't write to the spool {spool}: {error.strerror}",
            field="FRAZIL_SPOOL",
            remedy="name a folder on a volume that this user may write to",
        ) from None


def start_ranks(
    settings: LauncherSettings, environ: Mapping[str, str], run_folder: Path, local_ranks: int, module: str
) -> list[RankProcess]:
    """Start this node's ranks, each with an environment of its own."""
    threads = settings.threads or max(1, cores_here() // local_ranks)
    ranks = []
    for local_rank in range(local_ranks):
        rank = RankSettings(
            spool=settings.spool,
            run=run_folder,
            rank=settings.node_rank * local_ranks + local_rank,
            local_rank=local_rank,
            local_ranks=local_ranks,
            world=settings.nodes * local_ranks,
            device=settings.device,
            threads=threads,
            rendezvous=settings.rendezvous if settings.nodes > 1 else None,
            spool_bytes=settings.spool_bytes,
            replay=settings.replay,
            decode=settings.decode,
        )
        process = parent.start([sys.executable, "-m", module], env=rank_environ(environ, rank), new_session=True)
        ranks.append(RankProcess(rank.rank, process))
    log.info("ranks started", ranks=local_ranks, threads=threads, device=settings.device)
    return ranks


def drain(spool: Spool, verdict: Verdict, seconds: float, stop: StopRequest) -> Verdict:
    """Wait until the uploader has acknowledged everything: what was made is kept, whatever the verdict on the ranks."""
    until = time.monotonic() + seconds
    while not spool.wait_drained(min(NEWS_SECONDS, max(0.0, until - time.monotonic())), stop.expired):
        waiting = len(spool.pending())
        if stop.expired():
            return Verdict(exit_code=TEMPFAIL, text=f"stopped: {waiting} outputs are not stored yet")
        if time.monotonic() >= until:
            return Verdict(
                exit_code=TEMPFAIL,
                text=f"{waiting} outputs are made, but not stored after {seconds:.0f} s (is the uploader running, and the "
                "store reachable?)",
            )
        log.info("waiting for the uploader", outputs=waiting)
    if refused := spool.refused():
        texts = [verdict.text] if verdict.text else []
        texts += [f"{refusal.id} can't be stored: {refusal.reason}" for refusal in refused[:SHOWN_REFUSALS]]
        # The spool was damaged, the prompts weren't: the next start makes those outputs again.
        return Verdict(exit_code=TEMPFAIL, text="\n".join(texts))
    return verdict
