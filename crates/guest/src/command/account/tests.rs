//! User specifications against real and hostile files.

use proptest::prelude::*;

use super::*;

const PASSWD: &[u8] = b"root:x:0:0:root:/root:/bin/sh\n# a comment\n\nweb:x:33:34:www:/srv/web:/bin/sh\nbroken:x:abc:1::/:\nshort:x:5\n1000:x:7:7::/seven:\nhomeless:x:50:50\n";
const GROUP: &[u8] =
    b"root:x:0:\nweb:x:34:\nadm:x:4:web,other\nstaff:x:50:other,web\nwebby:x:60:webx\nwheel:x:10:root\n";

fn resolve(spec: &str) -> Result<(u32, u32, Vec<u32>, String), Unknown> {
    let account = Account::resolve(spec, PASSWD, GROUP)?;
    Ok((account.uid, account.gid, account.groups, String::from_utf8(account.home).unwrap()))
}

#[test]
fn specifications_mean_what_they_mean_to_docker() {
    let root = (0, 0, vec![10], "/root".to_owned());
    assert_eq!(resolve(""), Ok(root.clone()));
    assert_eq!(resolve("root"), Ok(root.clone()));
    assert_eq!(resolve("0"), Ok(root));
    let web = (33, 34, vec![4, 50], "/srv/web".to_owned());
    assert_eq!(resolve("web"), Ok(web.clone()));
    assert_eq!(resolve("33"), Ok(web), "a known number has everything that its name has");
    assert_eq!(resolve("web:adm"), Ok((33, 4, vec![], "/srv/web".to_owned())));
    assert_eq!(resolve("web:77"), Ok((33, 77, vec![], "/srv/web".to_owned())));
    assert_eq!(resolve("4711:4712"), Ok((4711, 4712, vec![], "/".to_owned())));
    assert_eq!(resolve("4711"), Ok((4711, 0, vec![], "/".to_owned())));
    assert_eq!(resolve("1000"), Ok((1000, 0, vec![], "/".to_owned())), "a number is never a name");
    assert_eq!(resolve(":adm"), Ok((0, 4, vec![], "/root".to_owned())));
    assert_eq!(resolve("homeless"), Ok((50, 50, vec![], "/".to_owned())));
}

#[test]
fn nobody_is_made_up() {
    for spec in ["nobody", "web:nogroup", "broken", "short", "4294967295", "4294967296", "-1", "+5", " web"] {
        assert_eq!(resolve(spec), Err(Unknown), "{spec:?}");
    }
}

#[test]
fn an_image_without_files_has_root_and_numbers() {
    let account = Account::resolve("", b"", b"").unwrap();
    assert_eq!(account, Account { uid: 0, gid: 0, groups: vec![], home: b"/".to_vec() });
    assert_eq!(Account::resolve("5:6", b"", b"").unwrap().gid, 6);
    assert_eq!(Account::resolve("root", b"", b""), Err(Unknown));
}

proptest! {
    #[test]
    fn hostile_files_never_panic(spec in ".*", passwd in any::<Vec<u8>>(), group in any::<Vec<u8>>()) {
        if let Ok(account) = Account::resolve(&spec, &passwd, &group) {
            prop_assert!(account.uid != u32::MAX && account.gid != u32::MAX);
            prop_assert!(!account.home.is_empty());
        }
    }
}
