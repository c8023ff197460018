//! Pages with checksums: Parquet's own CRC-32 field, which the library reads and does not write.
//!
//! The header is Thrift's compact protocol: a field is a byte (steps since the last field id << 4 |
//! type) and its value, numbers as zigzag varints, a struct ends in a zero byte.

use crate::codec::bytes::{put_varint, put_zigzag};
use parquet::basic::Encoding;
use parquet::column::page::{CompressedPage, Page, PageWriteSpec, PageWriter};
use parquet::errors::{ParquetError, Result};

const TRUE: u8 = 1;
const FALSE: u8 = 2;
const INT32: u8 = 5;
const STRUCT: u8 = 12;

/// Writes one column chunk's pages into memory.
pub struct ChecksummedPages<'a> {
    pub out: &'a mut Vec<u8>,
}

impl PageWriter for ChecksummedPages<'_> {
    fn write_page(&mut self, page: CompressedPage) -> Result<PageWriteSpec> {
        let start = self.out.len();
        write_header(self.out, &page)?;
        let header_bytes = self.out.len() - start;
        self.out.extend_from_slice(page.data());
        let mut spec = PageWriteSpec::new();
        spec.page_type = page.page_type();
        spec.uncompressed_size = page.uncompressed_size() + header_bytes;
        spec.compressed_size = page.compressed_size() + header_bytes;
        spec.offset = start as u64;
        spec.bytes_written = (self.out.len() - start) as u64;
        spec.num_values = page.num_values();
        Ok(spec)
    }

    fn close(&mut self) -> Result<()> {
        Ok(())
    }
}

/// Fields of one struct, ascending by id.
struct Fields<'a> {
    out: &'a mut Vec<u8>,
    last_id: u8,
}

impl Fields<'_> {
    fn id(&mut self, id: u8, kind: u8) {
        self.out.push((id - self.last_id) << 4 | kind);
        self.last_id = id;
    }
    fn number(&mut self, id: u8, value: i32) {
        self.id(id, INT32);
        put_zigzag(self.out, i64::from(value));
    }
    fn truth(&mut self, id: u8, value: bool) {
        self.id(id, if value { TRUE } else { FALSE });
    }
    fn end(self) {
        put_varint(self.out, 0);
    }
}

fn size(bytes: usize) -> Result<i32> {
    i32::try_from(bytes).map_err(|_| ParquetError::General(format!("a page of {bytes} bytes")))
}

fn write_header(out: &mut Vec<u8>, page: &CompressedPage) -> Result<()> {
    let values = size(page.num_values() as usize)?;
    let encoding = code(page.encoding())?;
    let (kind, field) = match page.compressed_page() {
        Page::DataPage { .. } => (0, 5),
        Page::DictionaryPage { .. } => (2, 7),
        Page::DataPageV2 { .. } => {
            return Err(ParquetError::General("pages are of version 1".to_owned()));
        }
    };
    let mut header = Fields { out, last_id: 0 };
    header.number(1, kind);
    header.number(2, size(page.uncompressed_size())?);
    header.number(3, size(page.compressed_size())?);
    header.number(4, crc32fast::hash(page.data()) as i32);
    header.id(field, STRUCT);
    let mut inner = Fields { out: &mut *header.out, last_id: 0 };
    inner.number(1, values);
    inner.number(2, encoding);
    match page.compressed_page() {
        Page::DataPage { def_level_encoding, rep_level_encoding, .. } => {
            inner.number(3, code(*def_level_encoding)?);
            inner.number(4, code(*rep_level_encoding)?);
        }
        Page::DictionaryPage { is_sorted, .. } => inner.truth(3, *is_sorted),
        Page::DataPageV2 { .. } => {}
    }
    inner.end();
    header.end();
    Ok(())
}

/// Parquet's number of an encoding.
fn code(encoding: Encoding) -> Result<i32> {
    match encoding {
        Encoding::PLAIN => Ok(0),
        Encoding::PLAIN_DICTIONARY => Ok(2),
        Encoding::RLE => Ok(3),
        Encoding::DELTA_BINARY_PACKED => Ok(5),
        Encoding::RLE_DICTIONARY => Ok(8),
        other => Err(ParquetError::General(format!("no page is encoded as {other:?}"))),
    }
}
