"""Records what the stages make of fixed inputs: python -m tests.stages.record_versions [STAGE ...] [--force]

Run it after raising a stage's version. It refuses contents that changed under the same version, unless --force is
given, which is right only if the fixed inputs or what is held of a file changed.
"""

import argparse
import sys

from stages.registry import STAGES, stage_named
from tests.stages.versions.cases import contents_of
from tests.stages.versions.fixture import FIXTURE, VersionError, record


def main() -> int:
    """Record the named stages, or all."""
    parser = argparse.ArgumentParser(description="Record what the stages make of fixed inputs.")
    names = [stage.name for stage in STAGES]
    parser.add_argument("stages", nargs="*", metavar="STAGE", help=f"default: all of {', '.join(names)}")
    parser.add_argument("--force", action="store_true", help="also if the version did not change")
    arguments = parser.parse_args()
    refused = False
    for name in arguments.stages or names:
        version = stage_named(name).version
        try:
            different = record(name, version, contents_of(name), force=arguments.force)
        except VersionError as error:
            refused = True
            print(f"{name}: refused: {error}", file=sys.stderr)
        else:
            print(f"{name} {version}: {len(different)} differences recorded in {FIXTURE.name}")
            for line in different[:20]:
                print(f"  {line}")
    return int(refused)


if __name__ == "__main__":
    sys.exit(main())
