"""What -o is taken for."""

from __future__ import annotations

import json

from kobox.mount.options import MountPlan, split_options


def test_words_go_to_the_host_to_the_flags_or_to_the_file_system() -> None:
    options = split_options(["noatime,allow_other", "subvol=home,rw,compress=zstd:3,sync,defaults"])
    plan = MountPlan("/image", "/folder", options=options)
    assert plan.host_words == {"allow_other"}
    assert plan.guest_flags == 1 << 10 | 1 << 4
    assert plan.guest_data == "subvol=home,compress=zstd:3"


def test_ro_is_no_word_of_the_file_system() -> None:
    assert MountPlan("/image", "/folder", options=("ro", "errors=continue")).guest_data == "errors=continue"


def test_a_plan_survives_its_way_to_another_process() -> None:
    plan = MountPlan("/image", "/folder", "ext4", ("ro", "x=y"), True, 3, 512, "6.1")
    assert MountPlan.from_data(json.loads(json.dumps(plan.as_data()))) == plan
