"""How does an adapter learn? Needs the extra `train`: only this package imports torch and gguf."""

import app.engines.model  # noqa: F401 -- says how idle threads wait, before torch loads OpenMP
