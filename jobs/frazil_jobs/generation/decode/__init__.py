"""The part of an image's time that isn't the denoising loop: its decoding, shared by the ranks or beside the next batch."""
