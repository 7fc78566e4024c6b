# Everything a newcomer needs: `make demo` and `make test`. Each sets up its own environment first.
PYTHON ?= python3
VENV ?= .venv
WORKERS ?= $(shell getconf _NPROCESSORS_ONLN)
BIN := $(VENV)/bin
# Real recordings, for ravdess-features: a RAVDESS tree with sound, its OpenFace tracks or means, a speech encoder.
SHARED := $(if $(CFNSR_SHARED),$(CFNSR_SHARED),../shared)
RAVDESS_SOUND ?= $(SHARED)/ravdess/audio
OPENFACE ?= $(SHARED)/ravdess/openface/au_means.csv
OPENFACE_FRAMES ?= $(SHARED)/ravdess/openface/frames
SPEECH ?= $(SHARED)/models/whisper-tiny-en-encoder
# Small networks, if they lie beside them; else they are fetched. This YuNet is one of fixed size.
YUNET := $(wildcard $(abspath $(SHARED))/models/face_detection_yunet_640.onnx)
EXPRESSION := $(wildcard $(abspath $(SHARED))/models/face-expression)
ifneq ($(YUNET),)
export CFNSR_YUNET ?= $(YUNET)
endif
ifneq ($(EXPRESSION),)
export CFNSR_EXPRESSION ?= $(EXPRESSION)
endif
STAMP := $(VENV)/.installed

.PHONY: setup demo demo-figures table interaction-task protocols ravdess-features everyday other-people docs bench chaos fuzz soak test test-all check constraints clean

setup: $(STAMP)

# The package and its development tools, at the versions the tests ran with.
$(STAMP): pyproject.toml constraints.txt
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "cfnsr needs Python 3.11 or newer")'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt torch
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt --editable '.[dev]'
	touch $@

demo: setup
	$(BIN)/cfnsr demo --out demo

# What a report of runs says goes without its long parts into docs/results, and `fill` writes the pages from there.
keep = $(BIN)/cfnsr report $(1) $(3) && $(BIN)/python docs/fill.py --store $(1)/results.json $(2).json
fill = $(BIN)/python docs/fill.py

# README.md's table of the demo.
demo-figures: demo
	$(call keep,demo/runs,demo)
	$(fill)

# docs/synthetic-tables.md: all fifteen models on the synthetic corpus, at a CPU's size.
table: setup
	$(BIN)/cfnsr synthesize table/corpus
	$(BIN)/cfnsr prepare table/corpus table/prepared --modalities video,audio,log_mel --size 64
	$(BIN)/cfnsr crossval --table 1 --table 2 --data table/prepared --preset small --protocol nested \
		--workers $(WORKERS) --resume --out table/runs
	$(call keep,table/runs,synthetic)
	$(fill)

# docs/interaction.md: what each row can learn of a task that only an interaction of the modalities solves.
interaction-task: setup
	$(BIN)/python docs/interaction.py docs/results/interaction.json
	$(fill)

# docs/protocols.md: what each habit of the field adds, on real sound. RAVDESS is a folder of its recordings.
protocols: setup
	@test -n "$(RAVDESS)" || { echo "make protocols RAVDESS=folder, with RAVDESS's speech recordings"; exit 2; }
	$(BIN)/cfnsr prepare $(RAVDESS) protocols/prepared --modalities audio
	$(BIN)/cfnsr crossval audio --data protocols/prepared --out protocols/runs --workers $(WORKERS) --resume \
		--protocol nested,best_epoch_on_test,paper,shared_actors,repeated_takes
	$(call keep,protocols/runs,protocols)
	$(fill)

# docs/ravdess-features.md: every fusion on OpenFace action units and a pretrained speech encoder, on real people.
# All rows choose their epochs and rate from one grid, on each fold's inner validation actors. Those of two senses have
# seed 0; the late rule and CFN-SR also 1 and 2.
FEATURES := $(BIN)/cfnsr crossval --preset features --workers $(WORKERS) --resume
BOTH := --video openface --audio speech --data features/prepared --out features/runs --protocol nested
MAIN := multiplication cfn_sr_features
SIMPLE := lda_video lda_audio lda lda_late logistic_video logistic_audio logistic logistic_late
COMPARED := --compare cfn_sr+openface+speech,cfn_sr_no_cross_modal+openface+speech \
	--compare cfn_sr_features,multiplication+openface+speech
ravdess-features: setup
	@test -e "$(RAVDESS_SOUND)" || { echo "make ravdess-features RAVDESS_SOUND=folder OPENFACE=folder-or-csv OPENFACE_FRAMES=folder SPEECH=openai/whisper-tiny.en"; exit 2; }
	$(BIN)/cfnsr prepare $(RAVDESS_SOUND) features/prepared --modalities openface,speech --openface $(OPENFACE) --speech-encoder $(SPEECH)
	$(FEATURES) $(BOTH) --tune cfn_sr_features cfn_sr_k_maps --table 1 --table 2
	$(FEATURES) $(BOTH) --tune $(MAIN) --seeds 1,2
	$(FEATURES) $(BOTH) --tune video audio $(MAIN) --speaker-normalisation
	$(FEATURES) $(BOTH) $(SIMPLE)
	$(BIN)/cfnsr prepare $(RAVDESS_SOUND) features/sound --modalities audio,speech --speech-encoder $(SPEECH)
	$(FEATURES) audio audio+speech --data features/sound --out features/runs-sound --protocol nested --seeds 0,1,2
	$(BIN)/cfnsr prepare $(OPENFACE_FRAMES) features/frames --modalities openface
	$(FEATURES) video --video openface --data features/frames --out features/runs-sequence --protocol leave_one_actor_out
	$(FEATURES) video --video openface --data features/frames --out features/runs-mean --protocol leave_one_actor_out --openface-steps 1
	$(call keep,features/runs,ravdess-features,$(COMPARED))
	$(call keep,features/runs-sound,ravdess-sound)
	$(call keep,features/runs-sequence,ravdess-frames)
	$(call keep,features/runs-mean,ravdess-frame-means)
	$(fill)

# src/cfnsr/pretrained: the models that come with the package. NEMO is a CSV of takes, FACES two folders of videos.
NEMO ?= $(SHARED)/voices/nemo.csv
FACES ?= $(SHARED)/clips/ravdess
MORE_FACES ?= $(SHARED)/clips/cremad
PREPARE_SPEECH := --modalities speech --speech-encoder $(SPEECH) --workers $(WORKERS)
people/prepared: setup
	$(BIN)/cfnsr prepare $(RAVDESS_SOUND) people/ravdess $(PREPARE_SPEECH) --degraded 2
	$(BIN)/cfnsr prepare $(NEMO) people/nemo $(PREPARE_SPEECH) --degraded 2
	$(BIN)/cfnsr prepare $(FACES) people/faces --modalities expression
	$(BIN)/cfnsr prepare $(MORE_FACES) people/more_faces --modalities expression
	touch $@

everyday: people/prepared
	$(BIN)/python docs/everyday.py people/ravdess people/nemo src/cfnsr/pretrained \
		--faces people/faces --faces people/more_faces

# docs/other-people.md: models on people, languages and microphones that did not train. URDU is a CSV of takes that
# never train. Takes about an hour on two cores.
URDU ?= $(SHARED)/voices/urdu.csv
SEVEN := neutral,happy,sad,angry,fearful,disgust,surprised,calm=neutral
LEFT_OUT := people/left-out/leave_one_corpus_out/logistic_audio+speech/seed_0
other-people: people/prepared
	$(BIN)/cfnsr prepare $(URDU) people/urdu $(PREPARE_SPEECH)
	$(BIN)/cfnsr crossval logistic_audio --audio speech --data people/ravdess --data people/nemo --labels $(SEVEN) \
		--protocol leave_one_corpus_out --preset robust --resume --out people/left-out
	for adapt in "" --adapt; do \
		evaluate="$(BIN)/cfnsr evaluate --out people/evaluated $$adapt" && \
		$$evaluate $(LEFT_OUT)/fold_1 people/nemo --name ravdess && \
		$$evaluate $(LEFT_OUT)/fold_1 people/urdu --name ravdess && \
		$$evaluate $(LEFT_OUT)/fold_2 people/ravdess --name nemo && \
		$$evaluate $(LEFT_OUT)/fold_2 people/urdu --name nemo && \
		$$evaluate voice people/urdu --name ravdess_and_nemo || exit; \
	done
	$(call keep,people/evaluated,people)
	$(BIN)/cfnsr crossval logistic_audio --audio speech --data people/ravdess --data people/nemo \
		--preset robust --set corpora_apart=false --workers $(WORKERS) --resume --out people/nested
	$(call keep,people/left-out,people-left-out)
	$(call keep,people/nested,people-nested)
	$(fill)

docs: setup
	$(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build
	@echo "docs/_build/index.html"

# What a newcomer waits for; `make test-all` has every row of the zoo and what takes long, as CI runs it.
test: setup check
	$(BIN)/python -m pytest -q -n 2 --dist worksteal --doctest-modules --durations 10 tests src

test-all: setup check
	$(BIN)/python -m pytest -q -n 2 --dist worksteal --doctest-modules --durations 40 --all tests src

# docs/reliability.md: kills, hostile files (`fuzz`) and load.
chaos: setup
	$(BIN)/python tests/reliability/chaos.py --kills 50 --out docs/results/chaos.json
	$(fill)

soak: setup
	$(BIN)/python tests/reliability/soak.py --minutes 30 --out docs/results/soak.json
	$(fill)

# 5,000 damaged and hostile files; `make test-all` has 500. One that fails is repeated alone by its number.
fuzz: setup
	$(BIN)/python tests/reliability/fuzz.py --seed 0 --cases 5000 --out docs/results/fuzz.json
	$(fill)

# docs/benchmarks.md. BENCH_CLIP is a video of a few seconds: a face, and speech.
BENCH_CLIP ?= $(firstword $(wildcard $(SHARED)/clips/ravdess/Actor_01/*.mp4))
bench: setup
	@test -e "$(BENCH_CLIP)" || { echo "make bench BENCH_CLIP=clip.mp4"; exit 2; }
	$(BIN)/cfnsr bench $(BENCH_CLIP) --out docs/benchmarks.md

check: setup
	$(BIN)/ruff check src tests docs benchmarks
	$(BIN)/ruff format --check src tests docs benchmarks
	$(BIN)/mypy
	$(BIN)/lint-imports --no-cache

# After an upgrade of the environment: pin what it has now.
constraints: setup
	$(BIN)/python -m pip freeze --exclude-editable | sed "s/+cpu$$//" > constraints.txt

clean:
	rm -rf $(VENV) demo table protocols features people docs/_build .mypy_cache .ruff_cache .pytest_cache
