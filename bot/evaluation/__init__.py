"""Independent evaluation: the benchmarks, the practice tasks, and the bundle that a job runs away from any branch."""
