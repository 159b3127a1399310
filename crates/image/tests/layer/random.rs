//! Random layers against a model that applies entries one by one to a map of paths, as a reader
//! of the OCI image specification would.

use std::collections::{BTreeMap, BTreeSet};

use image::layer::Limits;
use proptest::prelude::*;

use crate::items::{Item, tar};
use crate::shown::{merged, try_convert};

/// What an entry asks for.
#[derive(Debug, Clone)]
enum Act {
    File(u16),
    Directory(u16),
    Link(Vec<&'static str>),
    Whiteout,
    Opaque,
}

type Path = Vec<&'static str>;
type Entry = (Path, Act);

/// A file's number (equal for hard links) or, of a directory, nothing; and the mode.
type Model = BTreeMap<Path, (Option<usize>, u16)>;

/// Applies a layer; `false` if it is one to be refused.
fn apply(model: &mut Model, layer: &[Entry], next: &mut usize) -> bool {
    for (path, act) in layer {
        match act {
            Act::Whiteout => remove(model, path, true),
            Act::Opaque => remove(model, path, false),
            _ => {}
        }
    }
    // What of the model is of this layer.
    let mut own: BTreeSet<Path> = BTreeSet::new();
    for (path, act) in layer {
        let parents = if matches!(act, Act::Opaque) { path.len() } else { path.len() - 1 };
        for end in 1..=parents {
            let parent = path[..end].to_vec();
            if own.contains(&parent) {
                if model[&parent].0.is_some() {
                    return false;
                }
                continue;
            }
            make_directory(model, &parent, 0o755);
            own.insert(parent);
        }
        let object = match act {
            Act::Whiteout | Act::Opaque => continue,
            Act::Directory(mode) => {
                if own.contains(path) && model[path].0.is_some() {
                    remove(model, path, true);
                }
                make_directory(model, path, *mode);
                own.insert(path.clone());
                continue;
            }
            Act::File(mode) => {
                *next += 1;
                (Some(*next), *mode)
            }
            Act::Link(target) => match model.get(target).filter(|_| own.contains(target)) {
                Some(object @ (Some(_), _)) => *object,
                _ => return false,
            },
        };
        remove(model, path, true);
        own.retain(|other| !other.starts_with(path));
        own.insert(path.clone());
        model.insert(path.clone(), object);
    }
    true
}

fn make_directory(model: &mut Model, path: &Path, mode: u16) {
    if model.get(path).is_some_and(|(file, _)| file.is_some()) {
        model.remove(path);
    }
    model.insert(path.clone(), (None, mode));
}

fn remove(model: &mut Model, path: &Path, itself: bool) {
    model.retain(|other, _| !other.starts_with(path) || !itself && other == path);
}

fn item((path, act): &Entry) -> Item {
    let joined = path.join("/");
    match act {
        Act::File(mode) => Item::file(joined, "").mode(u32::from(*mode)),
        Act::Directory(mode) => Item::directory(joined).mode(u32::from(*mode)),
        Act::Link(target) => Item::hard_link(joined, target.join("/")),
        Act::Whiteout => {
            let (last, parents) = path.split_last().unwrap();
            Item::file([parents, &[&format!(".wh.{last}")[..]]].concat().join("/"), "")
        }
        Act::Opaque => Item::file(format!("{joined}/.wh..wh..opq"), ""),
    }
}

fn path() -> impl Strategy<Value = Path> {
    prop::collection::vec(prop::sample::select(vec!["a", "-b"]), 1..4)
}

fn entry() -> impl Strategy<Value = Entry> {
    let act = prop_oneof![
        4 => (0..0o7777_u16).prop_map(Act::File),
        4 => (0..0o7777_u16).prop_map(Act::Directory),
        1 => path().prop_map(Act::Link),
        2 => Just(Act::Whiteout),
        1 => Just(Act::Opaque),
    ];
    (path(), act)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(256))]

    #[test]
    fn random_layers_merge_to_what_the_specification_says(
        layers in prop::collection::vec(prop::collection::vec(entry(), 0..8), 1..4)
    ) {
        let mut model = Model::new();
        let mut next = 0;
        let mut images = Vec::new();
        for layer in &layers {
            let items: Vec<Item> = layer.iter().map(item).collect();
            let sound = apply(&mut model, layer, &mut next);
            let image = try_convert(&tar(&items), &Limits::default());
            prop_assert_eq!(image.is_ok(), sound, "{:?}", image.err());
            let Ok(image) = image else { return Ok(()) };
            images.push(image);
        }
        let mut links: BTreeMap<usize, u32> = BTreeMap::new();
        for number in model.values().filter_map(|(number, _)| *number) {
            *links.entry(number).or_default() += 1;
        }
        let expected: Vec<(Vec<u8>, Option<u32>, u16)> = model
            .iter()
            .map(|(path, (number, mode))| (path.join("/").into_bytes(), number.map(|number| links[&number]), *mode))
            .collect::<BTreeSet<_>>()
            .into_iter()
            .collect();
        let mut found: Vec<(Vec<u8>, Option<u32>, u16)> = merged(&images)
            .into_iter()
            .filter(|(path, _)| !path.is_empty())
            .map(|(path, shown)| {
                let file = shown.kind != image::erofs::FileType::Directory;
                (path, file.then_some(shown.links), shown.mode)
            })
            .collect();
        found.sort();
        prop_assert_eq!(found, expected);
    }
}
