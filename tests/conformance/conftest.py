import os
import sys

os.environ.setdefault("TORCH_DEVICE_BACKEND_AUTOLOAD", "0")  # the C interface alone: torch is the oracle here
sys.path.insert(0, os.path.dirname(__file__))
