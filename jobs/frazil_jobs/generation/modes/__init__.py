"""The modes that approximate: what each step of an image does, decided online and alike on every rank."""
