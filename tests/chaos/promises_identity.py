"""What is promised of who calls: certificates, rules for callers, and sockets."""

from typing import Final

from tests.chaos.promise import Promise
from tests.chaos.promise import tests_of as _of

IDENTITY: Final[tuple[Promise, ...]] = (
    Promise(
        "Who calls has proved it, and a renewal fails no call",
        "Where an authority of callers is set, nobody is let in over TCP without a certificate of "
        "it; what a caller says of himself proves nothing. Certificates and authorities are taken "
        "over while calls go on; bad ones are told, and change nothing.",
        "A connection outlives the certificate that it began with; `connection_age_ms` bounds it.",
        (40,),
        (
            *_of(
                "tls/test_callers",
                "bad_certificate_ends_the_handshake",
                "plain_text_is_not_answered",
                "certificate_without_one_spiffe_id_is_nobody",
                "identity_without_a_rule_is_denied",
                "rules_are_replaced_while_calls_go_on",
            ),
            *_of(
                "tls/test_rotation",
                "renewal_under_load_fails_no_call",
                "bad_renewal_keeps_the_last_good",
                "authority_of_callers_changes",
                "caller_believes_only_his_authority",
            ),
            *_of(
                "tls/test_certificates",
                "change_is_taken_over_once_it_stands_still",
                "good_one_is_not_given_up_for_one_out_of_its_time",
            ),
        ),
    ),
    Promise(
        "No caller reaches another's data",
        "A caller gets the tenants, meters and services that a rule gives him, by every method and "
        "in every place of a list. What is denied is denied before it is looked up, by the same "
        "words whether or not it exists.",
        "Within a tenant, whoever may ask for it may settle its reservations.",
        (41,),
        (
            *_of(
                "tls/test_callers",
                "every_method_is_asked_for",
                "other_tenant_is_denied_by_every_method",
                "denial_does_not_tell_what_exists",
                "reservation_of_another_tenant_is_not_there",
                "meters_of_a_rule_are_all",
                "list_is_denied_item_by_item",
                "charges_of_a_list_are_denied_one_by_one",
                "socket_has_a_rule_of_its_own",
            ),
            *_of(
                "tls/test_control", "role_and_tenants_are_those_of_the_rule", "rules_are_not_mixed"
            ),
            *_of("tls/test_identities", "one_rule_has_to_allow_all_of_it", "star_is_one_segment"),
        ),
    ),
    Promise(
        "A socket lets its group in, and has one server",
        "Another account gets EACCES; a second server on a path is refused; what a killed one left "
        "is taken over; a link in place of a lock is not followed.",
        "Whoever may write to the folder may put another socket there: that is told.",
        (42,),
        (
            *_of(
                "tls/test_sockets",
                "another_account_is_kept_out",
                "missing_folder_is_made_for_the_group",
                "folder_that_is_open_to_all_is_told",
                "planted_link_is_not_followed",
                "abandoned_socket_is_bound_anew",
            ),
            *_of(
                "faults/test_lifecycle",
                "a_second_server_cannot_have_the_path",
                "of_many_at_once_one_has_the_path",
                "what_a_killed_owner_left_is_taken_over",
            ),
        ),
    ),
)
