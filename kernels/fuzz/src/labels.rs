//! A label table's bytes, with their checksum mended: what is taken can be used in every way.

use _kernels::labels::LabelTable;

const CRC_AT: usize = 4;
const COUNTS_AT: usize = 8;

pub fn labels(input: &[u8]) {
    let mut bytes = LabelTable::default().to_bytes()[..COUNTS_AT].to_vec();
    bytes.extend_from_slice(input);
    let crc32 = crc32(input);
    bytes[CRC_AT..COUNTS_AT].copy_from_slice(&crc32.to_le_bytes());
    let Ok(table) = LabelTable::from_bytes(&bytes) else { return };
    let lists = table.to_list();
    assert_eq!(lists.len(), table.len());
    for name in table.names() {
        assert_eq!(table.codes_of(&name).0.len(), table.len());
        let (groups, _) = table.group(&[name], false);
        assert_eq!(groups.len(), table.len());
    }
    let again = LabelTable::from_bytes(&table.to_bytes()).expect("our own bytes");
    assert_eq!(again.to_list(), lists);
    if !table.is_empty() {
        let taken = table.take(&[table.len() - 1, 0]).expect("both are there");
        assert_eq!(LabelTable::concat(&[&table, &taken]).len(), table.len() + 2);
    }
}

fn crc32(bytes: &[u8]) -> u32 {
    let mut hasher = flate2::Crc::new();
    hasher.update(bytes);
    hasher.sum()
}
