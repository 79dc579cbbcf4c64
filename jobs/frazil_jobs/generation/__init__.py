"""The container that holds the GPUs: branches over ranks, the shard loop over prompts."""
