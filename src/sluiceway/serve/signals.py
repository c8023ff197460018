"""The signal by which the write side ends the read side.

Not SIGTERM: service managers send that to every process of a group at once, and the read side has
to answer what the write side has taken before either ends.
"""

import signal

STOP_SIGNAL = signal.SIGUSR1
