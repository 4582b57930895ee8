"""Pieces of words; and that the published vocabulary gives the numbers that BERT's own tokenizer gives."""

import json

from vmnet_pipeline.words.wordpiece import WordPieces, split_words

PIECES = ("[UNK]", "[CLS]", "[SEP]", "un", "##play", "##able", "piano", ",", "don", "'", "t", "\u4f60", "cafe")
VOCABULARY = {piece: number for number, piece in enumerate(PIECES)}


def encode(text, most=64):
    names = list(VOCABULARY)
    return [names[number] for number in WordPieces(VOCABULARY, most).encode(text)][1:-1]


def test_words_are_lowered_stripped_of_accents_and_cut():
    assert list(split_words("Caf\u00e9,\tdon't\u00a0stop\u200d\0!")) == ["cafe", ",", "don", "'", "t", "stop", "!"]
    assert list(split_words("\u4f60\u597dpiano")) == ["\u4f60", "\u597d", "piano"]
    assert list(split_words("  \n")) == []


def test_the_longest_known_pieces_are_taken_and_an_unknown_rest_makes_the_word_unknown():
    assert encode("UNPLAYABLE piano") == ["un", "##play", "##able", "piano"]
    assert encode("unplayed") == ["[UNK]"]
    assert encode("e\u0301") == ["[UNK]"]
    assert encode("piano" * 21) == ["[UNK]"]  # more than 100 characters


def test_long_texts_are_cut_and_keep_their_ends():
    numbers = WordPieces(VOCABULARY, 5).encode("piano " * 1000)
    assert numbers == [1, 6, 6, 6, 2]
    assert WordPieces(VOCABULARY, 5).encode("") == [1, 2]


def test_the_published_vocabulary_gives_the_numbers_of_the_reference(weights_dir):
    """Numbers printed by the `tokenizers` library for this file."""
    path = weights_dir / "all-MiniLM-L6-v2/tokenizer.json"
    pieces = WordPieces(json.loads(path.read_text())["model"]["vocab"], 128)
    assert pieces.encode("calm piano, no drums") == [101, 5475, 3682, 1010, 2053, 3846, 102]
    assert pieces.encode("Unpl\u00fcgged \u97f3\u697d!") == [101, 4895, 24759, 15916, 5999, 100, 100, 999, 102]
