"""`frazil plan` for a TrainingJob: where its times come from (times), what follows (planning), and how it looks (screen)."""
