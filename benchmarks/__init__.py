"""The program beside what one would use instead.

    python -m benchmarks                    every case, half an hour on two cores
    python -m benchmarks --only epoch_cifar commands
    python -m benchmarks --quick            small arrays, one round: that it all runs
    python -m benchmarks --write            every case, into benchmarks/RESULTS.md

All figures of a table are of one run on one machine: in each round every contender has a turn, one
after the other, so that whatever else the machine is busy with meets all of them; short runs are
repeated for a second a turn. Times are medians of the runs with the lowest and the highest; ratios
are of medians. What a contender needs before it can start (arrays in its own layout, models,
compilation) is made outside of the timing, for all alike. The objective that each has reached
stands beside its time: who does less is seen to.

The peers are those that came nearest: PyTorch and scikit-learn, and JAX (`pip install jax jaxopt`)
on the way to the optimum. Those that are not installed are left out by name.
"""
