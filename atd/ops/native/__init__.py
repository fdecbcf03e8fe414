"""C++ kernels of the ops for inference in float32 on x86-64 processors under Linux.

A C++ file holds a kernel, the Python module of the same name the checks and the calls; ``vector.h`` is what the kernels
share. :mod:`atd.ops.native.library` compiles them when the first one is needed, which takes a C++ compiler and some
seconds once per machine. Where that cannot be, the pure-torch path serves. The kernels do not know gradients: with
gradients enabled the torch path runs as well. Sums are float32, addresses 64 bits wide, and the results do not depend
on the number of threads.
"""
