"""Which backward work of a pipeline to skip, decided before any of it runs: pure values, no torch.

    schedules.order_of     what each rank does, in order           (GPipe, 1F1B, Interleaved1F1B, ZBV, ZBH1)
    timings.Timings        how long each action takes              (recorded, estimated or emulated)
    models.ModelTime       how long each block takes, and so each stage of any cut; estimate counts it from a config
    dag.build              what waits for what
    simulator.simulate     when each action starts and ends
    program.solve          how much of each backward to freeze     (a linear program, in constraints)
    partition.cut          which blocks a stage holds
    noise.spread           what timing noise does to a step
    comparison.compare     every schedule and way to freeze, side by side; published has the published run's times
    drawing                a schedule as an SVG Gantt chart or a Chrome trace

The method: TimelyFreeze (arXiv 2602.05754), with communication edges, slack and budgets of our own.
"""
