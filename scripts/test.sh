#!/usr/bin/env bash
# Everything that must hold before a change goes in, cheapest first.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf '\n== %s\n' "$*"; }

have_postgres() { [[ -x /usr/lib/postgresql/15/bin/pg_ctl ]] || command -v postgres >/dev/null; }

if ! have_postgres; then
    if [[ $(id -u) == 0 ]] && command -v apt-get >/dev/null; then
        say "installing PostgreSQL for the tests"
        apt-get update -qq
        DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends postgresql >/dev/null
    else
        say "no PostgreSQL and no root to install it (apt-get install postgresql): its tests are left out"
        export PHASEGATE_TEST_POSTGRES=off
    fi
fi

command -v chromium chromium-browser google-chrome >/dev/null ||
    say "no Chromium (apt-get install -y --no-install-recommends chromium): the console's browser tests are skipped"

say "ruff check" && .venv/bin/ruff check .
say "ruff format" && .venv/bin/ruff format --check .
say "mypy" && .venv/bin/mypy
say "import-linter" && .venv/bin/lint-imports
say "pytest" && .venv/bin/python -m pytest
