//! How often a name is reported.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_name_is_reported_once_a_minute() {
    let told = Told::default();
    assert!(told.is_new("a.example", Ending::Denied));
    assert!(!told.is_new("a.example", Ending::Denied));
    assert!(told.is_new("a.example", Ending::Answered));
    tokio::time::advance(QUIET).await;
    assert!(told.is_new("a.example", Ending::Denied));
}

#[tokio::test(start_paused = true)]
async fn a_guest_that_makes_up_names_floods_no_log() {
    let told = Told::default();
    let reported =
        |begin: usize| (begin..begin + 5000).filter(|n| told.is_new(&n.to_string(), Ending::Denied)).count();
    assert_eq!(reported(0), MAX_NAMES);
    tokio::time::advance(QUIET).await;
    assert_eq!(reported(5000), MAX_NAMES);
}
