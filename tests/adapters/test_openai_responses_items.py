"""The tables of where text lies fit together."""

from openai.types.responses import ResponseOutputRefusal, ResponseOutputText

from adapters.openai_responses_items import CALL_OF_EVENT, CALLS, ID_PREFIXES, LISTS, PART_OF_EVENT, PARTS


def test_every_part_belongs_to_a_list_of_an_item() -> None:
    lists = {name for names in LISTS.values() for name in names}
    assert {part.list for part in PARTS.values()} == lists
    assert ID_PREFIXES.keys() == LISTS.keys()
    assert len(PART_OF_EVENT) == len(PARTS)
    assert len(CALL_OF_EVENT) == len(CALLS)


def test_blank_parts_are_what_clients_expect() -> None:
    ResponseOutputText.model_validate(PARTS["output_text"].blank("output_text"))
    ResponseOutputRefusal.model_validate(PARTS["refusal"].blank("refusal"))
    assert PARTS["summary_text"].blank("summary_text") == {"type": "summary_text", "text": ""}
