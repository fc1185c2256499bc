# Benchmarks: included by the Makefile. Options by BENCH, as in: make bench-http BENCH="--clients 32 --repeats 5"

.PHONY: bench bench-engine bench-scoring bench-batch bench-http bench-start bench-transformers \
        bench-reliability bench-soak bench-fuzz-models bench-batch-latency bench-routing
bench: bench-engine bench-scoring bench-http bench-start ## Measure engine, service and start on this machine (minutes)

bench-engine: .venv/installed-dev ## Tokens/s of the engine alone, and where a step's time goes
	$(BIN)/python -m benchmarks.engine $(BENCH)

bench-scoring: .venv/installed-dev ## Scored tokens/s, and the roof that body and LM head set
	$(BIN)/python -m benchmarks.scoring $(BENCH)

bench-batch: .venv/installed-dev ## Tokens/s of `batch`, in turns with its engine alone
	$(BIN)/python -m benchmarks.batch $(BENCH)

bench-batch-latency: .venv/installed-dev ## TTFT and ITL of streams beside a batch, in turns with the same alone
	$(BIN)/python -m benchmarks.batch_latency $(BENCH)

bench-http: .venv/installed-dev ## Tokens/s, latencies, processor time and memory over HTTP
	$(BIN)/python -m benchmarks.serving $(BENCH)

bench-start: .venv/installed-dev ## Seconds from the start to the first token
	$(BIN)/python -m benchmarks.start $(BENCH)

bench-fuzz-models: .venv/installed-dev ## Open 10 000 spoilt model files: no crash, no hang, no memory for a lie
	$(BIN)/python -m benchmarks.reliability.fuzz_model_files $(BENCH)

bench-routing: .venv/installed-dev ## Simulate routing policies on 10 and 100 nodes of a measured curve (a minute)
	$(BIN)/python -m benchmarks.routing $(BENCH)

bench-transformers: .venv/installed-dev .tools/torch/installed ## The engine in turns with transformers in float32 (installs PyTorch)
	$(BIN)/python -m benchmarks.engine --sequences 1 8 32 --repeats 3 --with-transformers $(TORCH_PYTHON) $(BENCH)

# The order is from the quickest to the longest; all are run, and one missed bound fails the target.
RELIABILITY := idle_connections fairness worker_kill reload slow_loris slow_readers drain disconnects
bench-reliability: .venv/installed-dev ## Floods, slow and vanishing clients, kills, reloads, drains: figures and their bounds (about 10 minutes)
	@status=0; for program in $(RELIABILITY); do \
		$(BIN)/python -m benchmarks.reliability.$$program $(BENCH) || status=1; \
	done; exit $$status

bench-soak: .venv/installed-dev ## Memory and open files over 20 000 requests of every kind (minutes)
	$(BIN)/python -m benchmarks.reliability.soak $(BENCH)
