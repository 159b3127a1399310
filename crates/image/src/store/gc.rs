//! Garbage collection: what no image and no pin needs and nobody uses goes.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs;
use std::path::Path;

use serde::Serialize;

use super::layers::{MAX_DISKS, chain, distinct, remove_unused};
use super::{Store, StoreError};

/// What a collection did.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct GcReport {
    /// Layers removed.
    pub layers: u64,
    /// Merged images removed.
    pub merged: u64,
    /// Leftovers of killed processes removed.
    pub temporaries: u64,
    /// Bytes of disk freed.
    pub freed: u64,
    /// Layers and merged images that no image needs, but a run, pull or import does.
    pub in_use: u64,
}

impl Store {
    /// Removes layers and merged images that no image and no pin needs, unless they are in use, and leftovers
    /// of killed processes.
    ///
    /// # Errors
    /// A damaged record, since then it is not known what is needed; or the disk fails.
    pub fn gc(&self) -> Result<GcReport, StoreError> {
        let mut report = GcReport::default();
        // No image is entered and no layer replaced meanwhile. An image that is being pulled holds its layers.
        let _lock = self.lock()?;
        let mut layers = HashSet::new();
        let mut merged = HashSet::new();
        let needed = self.list()?.into_iter().map(|image| image.layers).chain(self.pinned_layers()?);
        for needed in needed {
            let distinct = distinct(&needed);
            if distinct.len() > MAX_DISKS {
                merged.insert(file_name(&self.merged_path(&chain(&distinct))));
            }
            layers.extend(distinct.iter().map(|diff_id| file_name(&self.layer_path(diff_id))));
        }
        report.layers = collect(&self.layers(), &layers, &mut report)?;
        report.merged = collect(&self.merged_folder(), &merged, &mut report)?;
        let tmp = self.tmp();
        let (files, bytes) = sys::draft::sweep(&tmp, |_| true).map_err(StoreError::io("clean", &tmp))?;
        report.temporaries = files;
        report.freed += bytes;
        Ok(report)
    }
}

/// Removes what is in a folder and not to be kept; returns how many files that were.
fn collect(folder: &Path, keep: &HashSet<OsString>, report: &mut GcReport) -> Result<u64, StoreError> {
    let mut removed = 0;
    for entry in fs::read_dir(folder).map_err(StoreError::io("list", folder))? {
        let entry = entry.map_err(StoreError::io("list", folder))?;
        if keep.contains(&entry.file_name()) {
            continue;
        }
        let path = entry.path();
        match remove_unused(&path).map_err(StoreError::io("remove", &path))? {
            Some(bytes) => {
                removed += 1;
                report.freed += bytes;
            }
            None => report.in_use += 1,
        }
    }
    Ok(removed)
}

fn file_name(path: &Path) -> OsString {
    path.file_name().unwrap_or_default().to_owned()
}
