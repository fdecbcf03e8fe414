"""Triton kernels of the ops, forward and backward, as ``torch.library`` custom operators.

A module bears the name of its op and holds three layers: the ``@triton.jit`` kernels, the custom operators that launch
them (with fake implementation and autograd formula, so that ``torch.compile`` and ``torch.export`` pass through), and
the function with the op's signature. Every module imports triton; nothing imports these modules before a kernel is
needed. Inputs are float32, bfloat16 or float16, sums are float32, addresses are 64 bits wide, the forward passes are
deterministic. ``TRITON_INTERPRET=1``, set before the first import, runs them on the CPU.
"""
