"""The work folder of a job's runs."""

from frazil_cli.workspace import workspace

PLACE = {"name": "ice", "uid": "0" * 64, "store": "/results", "prefix": "default/ice-00000000"}


def test_the_same_job_into_the_same_place_works_in_the_same_folder_and_any_other_elsewhere(tmp_path):
    def folder(**changes):
        return workspace(**{**PLACE, **changes}, work_dir=tmp_path).root

    assert folder() == folder()
    others = [{"uid": "1" * 64}, {"store": "/elsewhere"}, {"prefix": "default/ads/ice-00000000"}, {"name": "snow"}]
    assert len({folder(), *(folder(**change) for change in others)}) == 5
