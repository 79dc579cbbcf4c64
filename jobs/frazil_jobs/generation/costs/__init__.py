"""What a denoiser costs, counted on tensors without memory: multiply-adds by module, numbers that modules return, and what
each way of sharing an image among GPUs makes of them. Needs no weights and no GPU, and is the same on every machine."""
