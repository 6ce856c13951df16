"""How is a model asked, kept alive, and replaced?"""

import os

# Read by OpenMP's runtime when llama.cpp, which only this package imports, loads it. Threads that spin
# while they wait starve each other on a busy machine: two on two busy cores decode 35 tokens/s spinning
# and 264 sleeping.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
