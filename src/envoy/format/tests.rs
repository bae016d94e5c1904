//! What format strings compile to, and what is said of those that do not.

use super::*;

fn compiled(format: &str) -> Compiled {
    compile("test", format, &Options::default()).unwrap()
}

fn names(slots: &[Slot]) -> Vec<String> {
    slots.iter().map(|slot| show(slot.name)).collect()
}

fn error(format: &str) -> FormatError {
    compile("test", format, &Options::default()).unwrap_err()
}

#[test]
fn a_format_becomes_head_joints_and_tail() {
    let layout = compiled(
        "[%START_TIME%] \"%REQ(:METHOD)% %REQ(X-ENVOY-ORIGINAL-PATH?:PATH)% %PROTOCOL%\" %RESPONSE_CODE% \"%REQ(USER-AGENT)%\"\n",
    )
    .layout;
    assert_eq!(names(&layout.free), ["path", "user_agent"]);
    assert_eq!(layout.head.len(), 5);
    assert_eq!(layout.tail, [Item::Literal(b"\"".as_slice().into())]);
    assert_eq!(layout.joints.len(), 1);
    assert_eq!((layout.joints[0].anchor, layout.joints[0].byte, layout.joints[0].offset), (2, b'"', 0));
    assert_eq!((layout.roomy, layout.quotes, layout.is_bracketed), (1, 4, true));
}

#[test]
fn errors_have_a_place_and_say_what_is_allowed() {
    use FormatErrorKind as Kind;
    for (format, at, kind) in [
        ("[%START_TIME%] %PROTOCOL", 15, Kind::Unclosed("PROTOCOL".into())),
        ("x %PROTOCOL y% z", 2, Kind::Unclosed("PROTOCOL y".into())),
        ("100% sure", 3, Kind::NoName),
        ("%protocol%", 0, Kind::NoName),
        ("%REQ(X%", 0, Kind::UnclosedArgument("REQ".into())),
        ("a%REQ%", 1, Kind::NoArgument("REQ".into())),
        ("%REQ()%", 0, Kind::NoArgument("REQ".into())),
        ("%REQ(A?B?C)%", 0, Kind::Header("REQ".into(), "A?B?C".into())),
        ("%REQ(A?)%", 0, Kind::Header("REQ".into(), "A?".into())),
        ("%DURATION(x)%", 0, Kind::Argument("DURATION".into(), "x".into())),
        ("%REQ(A):x%", 0, Kind::Length("REQ".into(), "x".into())),
        ("%REQ(A):%", 0, Kind::Length("REQ".into(), "".into())),
        ("%PROTOCOL:4%", 0, Kind::NoLength("PROTOCOL".into(), 4)),
        ("%START_TIME(%Q)%", 0, Kind::Conversion("%Q".into())),
        ("", 0, Kind::NoOperator),
        ("100%%", 0, Kind::NoOperator),
        ("%PROTOCOL%\n%DURATION%", 10, Kind::LineBreak),
    ] {
        assert_eq!(error(format), FormatError { at, kind }, "{format}");
    }
    let many = "%DURATION% ".repeat(FIELDS_MAX + 1);
    assert_eq!(error(&many).kind, Kind::TooManyFields);
    let free: String = (0..=JOINTS_MAX + 1).map(|number| format!("\"%REQ(X-{number})%\" ")).collect();
    assert_eq!(error(&free).kind, Kind::TooManyFree);
    assert_eq!(error(&"x".repeat(FORMAT_BYTES_MAX + 1)).kind, Kind::TooLong);
    assert_eq!(
        error("a%REQ%").to_string(),
        "at byte 1: %REQ% must have an argument in parentheses that says which value it prints"
    );
}

#[test]
fn arguments_may_hold_percent_signs_and_parentheses() {
    let layout = compiled("%START_TIME(%Y/%m/%d %T)% %CEL(size(request.path) > 5 ? 'a' : 'b')% %REQ(A)%").layout;
    assert_eq!(names(&layout.slots), ["start_time", "cel:size(request.path) > 5 ? 'a' : 'b'", "header:a"]);
    let layout = compiled("%REQ(A):10% %%%DURATION%%%").layout;
    assert_eq!(names(&layout.slots), ["header:a", "duration"]);
    assert_eq!(layout.tail.last(), Some(&Item::Literal(b"%".as_slice().into())));
}

#[test]
fn a_field_is_free_where_its_border_may_stand_in_it() {
    let free = |format: &str| names(&compiled(format).layout.free);
    // Strict: what follows cannot stand in them.
    assert!(free("%DURATION% %UPSTREAM_CLUSTER% %PROTOCOL%|%RESPONSE_CODE%").is_empty());
    assert_eq!(free("%UPSTREAM_CLUSTER%|%DURATION%"), ["upstream_cluster"]);
    assert_eq!(free("%BYTES_SENT%-%DURATION%"), ["bytes_sent", "duration"]);
    assert_eq!(free("%UPSTREAM_TRANSPORT_FAILURE_REASON% %DURATION%"), ["upstream_transport_failure_reason"]);
    assert!(free("\"%UPSTREAM_TRANSPORT_FAILURE_REASON%\" %DURATION%").is_empty());
    // A time of fixed width ends by itself, one of names does not where it has to be read from its end.
    assert!(free("%START_TIME(%T)%5%DURATION%").is_empty());
    assert_eq!(free("%REQ(A)% %START_TIME(%B %Y)%"), ["header:a", "start_time"]);
    // Plain TCP: nothing else can take the blanks.
    assert_eq!(
        free("[%START_TIME%] %DURATION% %CONNECTION_TERMINATION_DETAILS% %CONNECTION_ID%"),
        ["connection_termination_details"]
    );
    assert_eq!(free("[%START_TIME%] %CONNECTION_TERMINATION_DETAILS% %REQ(:PATH)%"), ["path"]);
}

#[test]
fn what_cannot_be_told_apart_is_said() {
    let said = |format: &str| -> Vec<String> { compiled(format).warnings.iter().map(ToString::to_string).collect() };
    assert_eq!(
        said("%DURATION% %REQ(A)%%PROTOCOL%"),
        [
            "at byte 19: nothing separates header:a and protocol: header:a takes the text of both, and both are marked parse_ambiguous"
        ]
    );
    assert_eq!(
        said("%REQ(A)% %REQ(B)%"),
        [
            "at byte 9: header:a and header:b can both hold what stands between them: lines in which it stands more than once are marked parse_ambiguous; quotes around them help"
        ]
    );
    assert_eq!(said("\"%REQ(A)%\" \"%REQ(B)%\""), [""; 0]);
    assert_eq!(said("%NOT_ONE% %DURATION%"), ["at byte 0: operator %NOT_ONE% is not known and read as text"]);
    assert_eq!(said("%DURATION% %DURATION%"), ["at byte 11: duration is there already: this one is called duration_2"]);
}

#[test]
fn keys_can_be_chosen() {
    let keys = [("REQ(X-FOO)".to_owned(), "foo".to_owned())].into();
    let options = Options { keys, ..Options::default() };
    let compiled = compile("test", "%REQ(X-FOO)% %REQ(X-BAR)%", &options).unwrap();
    assert_eq!(names(&compiled.layout.slots), ["foo", "header:x-bar"]);
}
