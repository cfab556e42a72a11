"""What a bundle takes on this machine: times, memory and bandwidth, measured while its tokens are verified.

It imports `tasks` and all below them.
"""
