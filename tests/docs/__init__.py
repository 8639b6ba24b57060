"""Tests of the documentation."""

import pytest

pytest.register_assert_rewrite("tests.docs.docstrings", "tests.docs.pages")
