"""`frazil bench training`: schedules and ways to freeze side by side, on devices that are emulated by sleeping.

rows        what is compared, as plans and predictions: pure
emulated    a stage whose forward, dX and dW sleep as long as a real one's take
rank        one of the ranks: runs every row, round by round
measure     starts the ranks, and makes one table of their times
"""
