//! Ids that cloud load balancers put into the application's types (E0..EF), each by its vendor's own layout.

use crate::header::Header;
use crate::tlv::ascii;

impl<B: AsRef<[u8]>> Header<B> {
    /// The id of the AWS VPC endpoint the client came through, as `vpce-08d2bf15fac5001c9` (type EA, sub-type 1).
    pub fn aws_vpc_endpoint_id(&self) -> Option<&str> {
        self.tlvs().filter(|tlv| tlv.kind == AWS).find_map(|tlv| match tlv.value {
            [AWS_VPC_ENDPOINT_ID, id @ ..] => ascii(id),
            _ => None,
        })
    }

    /// The link id of the Azure private endpoint the client came through (type EE, sub-type 1, little-endian).
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
