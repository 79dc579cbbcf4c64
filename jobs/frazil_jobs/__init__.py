"""What runs in Frazil's pods: what a job is, its inputs and outputs, generation and training."""
