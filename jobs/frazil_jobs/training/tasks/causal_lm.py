"""CausalLM: the next token, with Llama's and Mistral's classes of transformers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import torch
import transformers
from torch import nn
from torch.nn import functional

from frazil_jobs.api.trainingjob import TrainingJob
from frazil_jobs.base.exits import BadConfiguration
from frazil_jobs.training.cutting import Cut
from frazil_jobs.training.planning.estimate import Shape, shape_of
from frazil_jobs.training.tasks import library
from frazil_jobs.training.tasks.base import MODEL_FIELD, Batch, Row, Task, options

CLASSES: Final = ("LlamaForCausalLM", "MistralForCausalLM")
DEFAULT_LENGTH: Final = 1024

_CUT: Final = Cut(
    primary="input_ids",
    blocks="model.layers",
    entries={"model.embed_tokens": 1},
    heads=("model.norm", "lm_head"),
    constants={"use_cache": False},
)


class CausalLM(Task):
    """A sample is `length` tokens of the text, cut without regard to where documents end (an end token lies between)."""

    cut = _CUT

    def __init__(self, job: TrainingJob, folder: Path) -> None:
        super().__init__(job, folder)
        options(job, {})
        self.config, self._class = library.config_of(folder, job, CLASSES)
        library.require_head_of_its_own(self.config, job)
        self.blocks = int(self.config.num_hidden_layers)
        most = int(self.config.max_position_embeddings)
        self.length = job.spec.dataset.sequence_length or min(most, DEFAULT_LENGTH)
        if self.length > most:
            raise BadConfiguration(
                f"{self.length} tokens are more than the {most} that the model has positions for",
                field="spec.dataset.sequenceLength",
                remedy=f"at most {most}",
            )

    def model(self) -> nn.Module:
        """The whole model."""
        return library.library_model(self.folder, self.job, self._class, self.config)

    def tokenizer(self) -> Any:
        """The folder's. Raises BadConfiguration when it has none, or one of more tokens than the model has."""
        try:
            found = transformers.AutoTokenizer.from_pretrained(self.folder, local_files_only=True)
        except (OSError, ValueError) as error:
            raise BadConfiguration(
                f"{self.folder} has no tokenizer that can be loaded: {str(error).splitlines()[0]}",
                field=MODEL_FIELD,
                remedy="save one beside the config (tokenizer.save_pretrained)",
            ) from None
        if len(found) > self.config.vocab_size:
            raise BadConfiguration(
                f"its tokenizer has {len(found)} tokens and its config a vocabulary of {self.config.vocab_size}",
                field=MODEL_FIELD,
                remedy="set vocab_size to at least as many",
            )
        return found

    def shape(self) -> Shape:
        """Counted from its configuration."""
        return shape_of(self.spec.task, self.config.to_dict(), sequence_length=self.length)

    def sample(self) -> torch.Tensor:
        """Token ids."""
        return torch.zeros(self.length, dtype=torch.int64)

    def batch(self, rows: Sequence[Row], *, draw: torch.Generator, training: bool) -> Batch:
        """Tokens are input and target; the loss shifts them."""
        tokens = torch.stack([torch.as_tensor(row["tokens"], dtype=torch.int64) for row in rows]).to(self.device)
        return Batch(inputs=(tokens,), target=tokens)

    def loss(self, output: Any, target: torch.Tensor) -> torch.Tensor:
        """Mean cross-entropy, in nats a token, of logits (batch, length, vocabulary) for the token after each."""
        logits = output[:, :-1].flatten(0, 1)
        return functional.cross_entropy(
            logits if logits.dtype == torch.float64 else logits.float(), target[:, 1:].flatten()
        )

    def save_around(self, folder: Path) -> None:
        """Configuration and tokenizer."""
        config = self.config.__class__.from_dict(self.config.to_dict())
        config.architectures = [self._class]
        config.dtype = "float32"
        config.save_pretrained(folder)
        self.tokenizer().save_pretrained(folder)
