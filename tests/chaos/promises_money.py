"""What is promised of usage on its way to money."""

from typing import Final

from tests.chaos.promise import Promise
from tests.chaos.promise import tests_of as _of

MONEY: Final[tuple[Promise, ...]] = (
    Promise(
        "Stripe is told once, or somebody is told why not",
        "Whatever happens to calls, keys, clocks and relays, each unit of usage is at Stripe once; "
        "what Stripe refuses, or is too old for, is kept with its reason.",
        "In doubt for at most 23 h, then told by Stripe's sum; where that tells nothing, not sent.",
        (25, 26),
        (
            *_of(
                "faults/test_stripe",
                "a_failure_bills_once",
                "a_call_that_times_out_bills_once",
                "a_remembered_error_does_not_stay",
                "throttling_holds_the_account_back",
                "throttling_lasts_as_long_as_it_says",
                "one_bad_event_is_left_with_its_reason",
                "a_refused_key_pauses_the_sink",
                "a_key_that_cannot_be_read_pauses_the_sink",
                "a_clock_that_is_off_is_told",
                "one_customers_meter_is_sent_in_turn",
                "a_relay_that_comes_back_changes_nothing",
                "two_planners_intend_once",
                "a_refusal_in_doubt_is_settled",
                "less_than_was_told_is_taken_back",
                "totals_overwrite",
            ),
            *_of(
                "faults/test_stripe_outage",
                "a_day_without_answers",
                "a_day_in_which_nothing_arrived",
                "some_arrived_and_some_did_not",
                "what_nothing_explains_is_left_to_people",
                "more_than_stripe_takes",
                "in_doubt_and_too_old",
            ),
            *_of("stripe_sync/test_property", "stripe_ends_with_what_the_ledger_has"),
        ),
    ),
    Promise(
        "No destination keeps another one waiting",
        "Whichever is slow or fails, webhook or Stripe, the others have all usage, and each one's "
        "lag is its own; nor does one message or customer keep those after it.",
        "None is told later than by itself; who was away has all of it, once, after it is back.",
        (27,),
        _of(
            "faults/test_destinations",
            "one_of_three_is_away",
            "one_message_holds_back_no_other",
            "one_customer_holds_back_no_other",
        ),
    ),
    Promise(
        "An issued invoice stays as it is",
        "Late usage is on the next invoice at the price of its own time, or on a further revision, "
        "as its meter says; a replay is on none. What was issued is never edited.",
        "A further revision only where something has changed.",
        (28,),
        (
            *_of(
                "faults/test_invoice_late",
                "late_usage_leaves_the_issued_invoice",
                "a_replay_bills_nothing_twice",
                "new_prices_are_of_their_own_time",
                "nobody_edits_an_issued_invoice",
            ),
            *_of("flow/test_retention", "a_duplicate_stays_one"),
        ),
    ),
)
