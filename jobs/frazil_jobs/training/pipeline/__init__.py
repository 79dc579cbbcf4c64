"""Training over pipeline stages by unmodified torch.distributed.pipelining, with frozen backward work where a plan says so.

engine = PipelineEngine(stages, num_stages=4, schedule="1F1B", microbatches=8, loss=loss_function, ...)
for step in range(first, steps):
    engine.begin_step(step)
    for inputs, target in accumulated_batches:
        engine.train_batch(inputs, target)
    engine.reduce_gradients()
    norm = engine.clip_gradients(1.0)
    optimizer.step()
    optimizer.zero_grad(set_to_none=True)
    report = engine.end_step()
"""

from frazil_jobs.training.pipeline.engine import PipelineEngine, StepReport

__all__ = ["PipelineEngine", "StepReport"]
