"""Haypile against its peers: the same load on each, one server at a time. scripts/bench.sh runs it; docs/performance.md explains it.

- cli: the command line
- servers: the servers to compare; starting them, and what a process has used
- resp: a small client; load: the loads (redis-benchmark, and our own for keys that are not uniform)
- matrix: the rows of the matrix; replication: those of two nodes and of a restart; targets: what Haypile is to reach
- run: rounds of rows over servers; results: what they measured, medians of it, CSV
- sweeps: throughput against one quantity
- report, chart: tables and charts; document: docs/performance.md; provenance: of what build and machine; guard: what CI holds
"""
