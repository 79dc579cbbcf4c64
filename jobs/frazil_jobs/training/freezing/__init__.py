"""Freezing at run time: which backward work is skipped in which microbatch, and when that is planned anew.

controller   when to measure, plan, ramp up and plan anew   (pure)
masks        which tensors, once a plan says how much       (pure)
timing       from measured actions to a plan's times        (pure)
metrics      which tensors have settled                     (APF, AutoFreeze)
stage        freezes for one microbatch, and times
freezer      one rank's edge of all this: `Freezer`
"""
