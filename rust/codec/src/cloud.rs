//! Ids that cloud load balancers put into the types reserved for applications (E0..EF). Each vendor has its
//! own layout.

use crate::header::Header;
use crate::tlv::ascii;

impl<B: AsRef<[u8]>> Header<B> {
    /// The id of the AWS VPC endpoint that the client came through, such as `vpce-08d2bf15fac5001c9` (type
    /// EA, sub-type 1).
    pub fn aws_vpc_endpoint_id(&self) -> Option<&str> {
        self.tlvs().filter(|tlv| tlv.kind == AWS).find_map(|tlv| match tlv.value {
            [AWS_VPC_ENDPOINT_ID, id @ ..] => ascii(id),
            _ => None,
        })
    }

    /// The link id of the Azure private endpoint that the client came through (type EE, sub-type 1,
    /// little-endian).
    pub fn azure_private_endpoint_link_id(&self) -> Option<u32> {
        self.tlvs().filter(|tlv| tlv.kind == AZURE).find_map(|tlv| match *tlv.value {
            [AZURE_PRIVATE_ENDPOINT_LINK_ID, a, b, c, d] => Some(u32::from_le_bytes([a, b, c, d])),
            _ => None,
        })
    }

    /// The connection id of GCP's Private Service Connect (type E0, eight bytes, big-endian).
    pub fn gcp_psc_connection_id(&self) -> Option<u64> {
        self.tlvs()
            .filter(|tlv| tlv.kind == GCP_PSC_CONNECTION_ID)
            .find_map(|tlv| tlv.value.try_into().ok().map(u64::from_be_bytes))
    }
}

const AWS: u8 = 0xea;
const AWS_VPC_ENDPOINT_ID: u8 = 0x01;
const AZURE: u8 = 0xee;
const AZURE_PRIVATE_ENDPOINT_LINK_ID: u8 = 0x01;
const GCP_PSC_CONNECTION_ID: u8 = 0xe0;

#[cfg(test)]
mod tests {
    use crate::{Header, Tlv};

    fn header(kind: u8, value: &[u8]) -> Header {
        Header::local(&[Tlv::new(kind, value)], false).unwrap()
    }

    #[test]
    fn each_vendor_reads_its_own_layout() {
        let aws = header(0xea, b"\x01vpce-08d2bf15fac5001c9");
        assert_eq!(aws.aws_vpc_endpoint_id(), Some("vpce-08d2bf15fac5001c9"));
        let azure = header(0xee, b"\x01\x78\x56\x34\x12");
        assert_eq!(azure.azure_private_endpoint_link_id(), Some(0x1234_5678));
        let gcp = header(0xe0, b"\x01\x23\x45\x67\x89\xab\xcd\xef");
        assert_eq!(gcp.gcp_psc_connection_id(), Some(0x0123_4567_89ab_cdef));
    }

    #[test]
    fn another_layout_of_the_same_type_is_nobodys() {
        let values: [(u8, &[u8]); 10] = [
            (0xea, b""),
            (0xea, b"\x02vpce-08d2bf15fac5001c9"),
            (0xea, b"\x01\xff"),
            (0xee, b""),
            (0xee, b"\x02\x78\x56\x34\x12"),
            (0xee, b"\x01\x78\x56\x34"),
            (0xee, b"\x01\x78\x56\x34\x12\0"),
            (0xe0, b""),
            (0xe0, b"\x01\x23\x45\x67\x89\xab\xcd"),
            (0xe0, b"\x01\x23\x45\x67\x89\xab\xcd\xef\0"),
        ];
        for (kind, value) in values {
            let header = header(kind, value);
            assert_eq!(header.aws_vpc_endpoint_id(), None, "{kind:02x} {value:?}");
            assert_eq!(header.azure_private_endpoint_link_id(), None, "{kind:02x} {value:?}");
            assert_eq!(header.gcp_psc_connection_id(), None, "{kind:02x} {value:?}");
        }
    }

    #[test]
    fn other_sub_types_in_front_are_passed_over() {
        let tlvs =
            [Tlv::new(0xea, b"\x02other"), Tlv::new(0xea, b"\x01vpce-1"), Tlv::new(0xea, b"\x01vpce-2")];
        assert_eq!(Header::local(&tlvs, false).unwrap().aws_vpc_endpoint_id(), Some("vpce-1"));
    }
}
