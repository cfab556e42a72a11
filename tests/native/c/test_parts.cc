// Parts of the library by themselves, and the table positions of ONNX Runtime's functions.
#include "support.hpp"

extern "C" {
void igpt_sha256(const void *data, size_t size, char hex[65]);
extern const char *const igpt_own_names[];
extern const size_t igpt_own_positions[], igpt_own_count;
#ifdef IGPT_HAS_ORT_HEADER
extern const size_t igpt_official_positions[], igpt_official_count;
#endif
}

static std::string sha256(const Bytes &data) {
  char hex[65];
  igpt_sha256(data.data(), data.size(), hex);
  return hex;
}

TEST(Parts, Sha256) {  // of FIPS 180-4, and lengths around the borders of a block, from another implementation
  EXPECT_EQ(sha256(""), "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  EXPECT_EQ(sha256("abc"), "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  EXPECT_EQ(sha256("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq"),
            "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  EXPECT_EQ(sha256(Bytes(1000000, 'a')), "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
  EXPECT_EQ(sha256(Bytes(55, 'a')), "9f4390f8d30c2dd92ec9f095b65e2b9ae9b0a925a5258e241c9f1e910f734318");
  EXPECT_EQ(sha256(Bytes(56, 'a')), "b35439a4ac6f0948b6d6f9e3c6af0f5f590ce20f1bde7090ef7970686ec6738a");
  EXPECT_EQ(sha256(Bytes(63, 'a')), "7d3e74a05d7db15bce4ad9ec0658ea98e3f06eeecf16b4c6fff2da457ddc2f34");
  EXPECT_EQ(sha256(Bytes(64, 'a')), "ffe054fe7ae0cb6dc65c3af9b61d5209f439851db43d0ba5997337df154668eb");
}

TEST(Parts, Version) {
  EXPECT_STREQ(igpt_version(), IGPT_VERSION);
}

TEST(Parts, PositionsOfFunctions) {
#ifdef IGPT_HAS_ORT_HEADER
  ASSERT_EQ(igpt_own_count, igpt_official_count);
  for (size_t i = 0; i < igpt_own_count; i++)
    EXPECT_EQ(igpt_own_positions[i], igpt_official_positions[i]) << igpt_own_names[i];
#else
  GTEST_SKIP() << "set IGPT_ORT_INCLUDE to the folder of onnxruntime_c_api.h";
#endif
}
