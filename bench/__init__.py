"""Measurements of what runrootless costs, beside the real root and other ways."""

import os
import sys

# The user without privileges, the trees and the oracle are those of the tests.
sys.path.insert(0, os.path.join(os.path.dirname(os.path.dirname(__file__)), "tests"))
