.DEFAULT_GOAL := help
PYTHON ?= python3
CONSTRAINTS ?= tests/constraints.txt
JOBS ?= 2
VENV := .venv/bin
OFFLINE := $(VENV)/python tests/offline.py run --

help:            ## print this list
	@grep -hE '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /make \1|/' | column -t -s '|'

setup: .venv/done  ## virtual environment and the two small checkpoints, once
	@$(VENV)/python tests/offline.py weights

.venv/done: requirements.txt tests/requirements.txt tests/constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 15) and "Python 3.11 to 3.14 is needed: add PYTHON=python3.12, say")'
	$(PYTHON) -m venv .venv
	$(VENV)/python -m pip install --quiet --disable-pip-version-check -r requirements.txt -r tests/requirements.txt -c $(CONSTRAINTS)
	@touch $@

run: setup       ## run every notebook (TASK=folder for one): executed copies and a table, in runs/
	@$(OFFLINE) $(VENV)/python tests/notebooks.py run $(TASK)

test: setup      ## every notebook on small models, the pairs, helpers, data and papers (JOBS=4 for more at once)
	@$(VENV)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder

prove: setup     ## the rest: default runs, kills and resumes, processes, architectures, other names, browser
	@$(VENV)/python -m pytest -n $(JOBS) --dist loadfile --no-loadscope-reorder tests/prove

colab: setup     ## run one folder's notebooks (TASK=folder) with the versions of Colab's image
	@$(OFFLINE) $(VENV)/python tests/colab.py $(TASK)

lab: setup       ## open JupyterLab here, with the two small checkpoints in its cache
	@$(OFFLINE) $(VENV)/jupyter lab

refresh: setup   ## run every notebook (TASK=folder for one) in place, ready to commit
	@$(OFFLINE) $(VENV)/python tests/notebooks.py refresh $(TASK)

recipe: setup    ## run one folder's notebooks with a recipe of its README: TASK=folder TITLE="LoRA" (SEED=43 for another seed)
	@$(OFFLINE) $(VENV)/python tests/recipes.py $(TASK) "$(TITLE)" $(SEED)

results: setup   ## train with two more seeds, and fill the README's results table and plot from runs/ (after make run)
	@$(OFFLINE) $(VENV)/python tests/notebooks.py seeds $(TASK)
	@$(VENV)/python tests/notebooks.py results

labels: setup    ## how many labels sequence classification needs: train on fewer and fewer, and draw the curve
	@$(OFFLINE) $(VENV)/python tests/curves.py

growth: setup    ## how time and memory grow with the data (TASK=folder for one): draws the plots of the READMEs
	@$(OFFLINE) $(VENV)/python tests/growth.py grow $(TASK)

peers: setup     ## speed beside the scripts of Transformers: SCRIPTS=its examples/pytorch (TASK=folder for one)
	@$(OFFLINE) $(VENV)/python tests/growth.py peers $(SCRIPTS) $(TASK)

realtext: setup  ## pretrain causal language modeling on real text, and compare it with compressors
	@$(OFFLINE) $(VENV)/python tests/real_text.py

home: setup      ## set the repository's address everywhere: REPO=owner/name
	@$(VENV)/python tests/notebooks.py home $(REPO)

.PHONY: help setup run test prove colab lab refresh recipe results labels growth peers realtext home
