"""What is done for whole jobs by the chart's worker Deployment: prompts inspected, results recounted and finalized."""
