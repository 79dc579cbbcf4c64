"""Write a text that every Python has (the topics of its own help), and a small Llama's tokenizer and configuration.

python examples/text/make.py
"""

from __future__ import annotations

from pathlib import Path
from pydoc_data.topics import topics

import transformers
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers

HERE = Path(__file__).parent
VOCABULARY = 2048
END = "<end>"


def main() -> None:
    """Write data/train.txt and model/."""
    text = "\n".join(topics[name] for name in sorted(topics))
    (HERE / "data").mkdir(exist_ok=True)
    (HERE / "data" / "train.txt").write_text(text, encoding="utf-8")
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=[END], initial_alphabet=pre_tokenizers.ByteLevel.alphabet()
    )
    tokenizer.train_from_iterator([text], trainer)
    fast = transformers.PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token=END)
    fast.save_pretrained(HERE / "model")
    transformers.LlamaConfig(
        architectures=["LlamaForCausalLM"],
        vocab_size=VOCABULARY,
        hidden_size=128,
        intermediate_size=344,
        num_hidden_layers=6,
        num_attention_heads=4,
        num_key_value_heads=4,
        max_position_embeddings=256,
        tie_word_embeddings=False,
        bos_token_id=None,
        eos_token_id=fast.eos_token_id,
    ).save_pretrained(HERE / "model")
    print(f"{len(text):,} characters in {HERE / 'data'}, a model of {VOCABULARY} tokens in {HERE / 'model'}")


if __name__ == "__main__":
    main()
