import torch

from modeling.documents import find_documents


def spans(tokens):
    return list(find_documents(torch.tensor(tokens), end_of_text=0).spans())


def test_documents_begin_at_the_end_of_text_token():
    assert spans([[5, 0, 6, 7, 0, 8], [0, 5, 6, 7, 8, 9]]) == [(0, 0, 1), (0, 1, 4), (0, 4, 6), (1, 0, 6)]


def test_of_several_the_last_begins_one_if_text_follows():
    assert spans([[5, 0, 0, 6, 0, 0]]) == [(0, 0, 2), (0, 2, 6)]


def test_rows_of_one_document_have_none_to_keep_apart():
    assert find_documents(torch.tensor([[0, 1, 2], [3, 4, 0]]), 0) is None
    assert find_documents(torch.tensor([[0]]), 0) is None


def test_each_token_knows_where_its_document_begins():
    found = find_documents(torch.tensor([[5, 0, 6, 7, 0, 8], [0, 5, 6, 7, 8, 9]]), 0)
    assert found.starts.tolist() == [[0, 1, 1, 1, 4, 4], [0] * 6]
