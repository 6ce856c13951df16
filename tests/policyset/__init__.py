"""Which situations teach and test the shipped adapter, and what is their true decision?

The truth is the shipped legacy policy, changed by what only the free text says. Training and test
share no sentence, no name and no actor. `python -m tests.policyset --split train --n 1000 --seed 1`.
"""
