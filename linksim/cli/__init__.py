"""The command line: `linksim coded-ber`, `train`, `export`, `report` and `models`."""

import logging
import os

# TensorFlow reads these when it is imported, which is later than this
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
# A run compiles several detectors; TensorFlow would warn that it retraces a function
logging.getLogger("tensorflow").setLevel(logging.ERROR)
