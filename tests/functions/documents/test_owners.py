"""Whose a document is, by its upload and by whether the stack knows its callers."""

from __future__ import annotations

import pytest

from documents.owners import NOBODY, BlankOwner, owner_of


@pytest.mark.parametrize("mode", ["JWT", "AWS_IAM", "a mode of tomorrow", "", None])
def test_an_upload_of_unknown_owner_is_nobody_s_unless_the_stack_says_that_it_has_no_authorization(
    mode: str | None,
) -> None:
    environment = {} if mode is None else {"AUTHORIZATION": mode}
    assert owner_of({}, environment) == NOBODY
    assert owner_of({"owner": "al%C3%ADce%7C1"}, environment) == "alíce|1"


def test_a_document_that_was_expected_is_its_owner_s_whatever_the_upload_leaves_out() -> None:
    assert owner_of({}, {"AUTHORIZATION": "JWT"}, noted="alice") == "alice"
    assert owner_of({}, {"AUTHORIZATION": "JWT", "SHARED_DOCUMENTS": "true"}, noted="alice") == "alice"
    assert owner_of({"owner": "bob"}, {"AUTHORIZATION": "JWT"}, noted="alice") == "bob"


def test_shared_documents_are_asked_for_by_name() -> None:
    assert owner_of({}, {"AUTHORIZATION": "JWT", "SHARED_DOCUMENTS": "true"}) is None
    assert owner_of({}, {"AUTHORIZATION": "JWT", "SHARED_DOCUMENTS": "false"}) == NOBODY


@pytest.mark.parametrize("owner", ["", " ", "%20", "%09%0A"])
@pytest.mark.parametrize("shared", ["true", "false"])
def test_a_blank_owner_is_an_error_even_where_documents_are_shared(owner: str, shared: str) -> None:
    with pytest.raises(BlankOwner):
        owner_of({"owner": owner}, {"AUTHORIZATION": "JWT", "SHARED_DOCUMENTS": shared})


def test_without_authorization_documents_without_an_owner_are_everyone_s() -> None:
    environment = {"AUTHORIZATION": "NONE"}
    assert owner_of({}, environment) is None
    assert owner_of({"owner": ""}, environment) is None


def test_no_principal_can_be_nobody() -> None:
    assert not NOBODY.isascii(), "subjects, ARNs and identity ids are ASCII"
