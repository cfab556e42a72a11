// igpt-c and the small programs.
#include "support.hpp"

#include <sys/wait.h>

struct Result {
  int status;
  std::string text;  // of both streams
};
static Result run(const std::string &command) {
  Result result{-1, ""};
  FILE *stream = popen((command + " 2>&1").c_str(), "r");
  if (!stream) return result;
  char part[4096];
  for (size_t size; (size = fread(part, 1, sizeof part, stream)) > 0;) result.text.append(part, size);
  const int status = pclose(stream);
  result.status = WIFEXITED(status) ? WEXITSTATUS(status) : 128;
  return result;
}
static Result igpt_c(const std::string &arguments) {
  return run(std::string(IGPT_PROGRAM) + " " + arguments + " --bundle " + golden_bundle() + " --library " + library());
}

class Programs : public testing::Test {
 protected:
  Folder folder;
  void SetUp() override {
    const Picture picture("photo");
    const std::string head = "P6\n" + std::to_string(picture.width) + " " + std::to_string(picture.height) + "\n255\n";
    write(folder / "in.ppm", head + Bytes(picture.rgb.begin(), picture.rgb.end()));
  }
};

TEST_F(Programs, Complete) {
  const std::string in = folder / "in.ppm";
  for (const char *how : {"", " --steps"}) {
    const Result made = igpt_c("complete " + in + " -n 3 --seed 5 -o " + (folder / "out.png") + how);
    ASSERT_EQ(made.status, 0) << made.text;
    EXPECT_EQ(read(folder / "out.png").substr(1, 3), "PNG");
    ASSERT_EQ(igpt_c("complete " + in + " -n 3 --seed 5 -o " + (folder / (*how ? "b.ppm" : "a.ppm")) + how).status, 0);
  }
  EXPECT_EQ(read(folder / "a.ppm"), read(folder / "b.ppm"));
  EXPECT_EQ(read(folder / "a.ppm").size(), std::string("P6 24 8 255\n").size() + 3 * 192);
  // What it has written it can read; a PNG is the same picture.
  const Result png = igpt_c("score " + (folder / "out.png")), ppm = igpt_c("score " + (folder / "a.ppm"));
  EXPECT_EQ(png.status, 0) << png.text;
  EXPECT_EQ(png.text, ppm.text);
  EXPECT_EQ(igpt_c("sample --top-k 3 --temperature 0.5 --top-p 0.9 -o " + (folder / "s.ppm")).status, 0);
  EXPECT_EQ(igpt_c("info").status, 0);
  EXPECT_NE(igpt_c("classify " + in).text.find(" a\n"), std::string::npos);
}

TEST_F(Programs, Refused) {
  const std::string in = folder / "in.ppm", out = " -o " + (folder / "out.png");
  write(folder / "cut.ppm", read(in).substr(0, 100));
  write(folder / "bad.png", Bytes("\x89PNG\r\n\x1a\n") + "nothing of the kind");
  write(folder / "text", "no picture\n");
  const std::string list[] = {
      "complete" + out,
      "complete /nonexistent" + out,
      "complete " + (folder / "cut.ppm") + out,
      "complete " + (folder / "bad.png") + out,
      "complete " + (folder / "text") + out,
      "complete " + folder.path.string() + out,
      "complete " + in,
      "complete " + in + " -o /nonexistent/out.png",
      "complete " + in + " -o /nonexistent/out.ppm",
      "complete " + in + out + " -n 0",
      "complete " + in + out + " -n 99999999999999999999",
      "complete " + in + out + " -n 3x",
      "complete " + in + out + " --seed -1",
      "complete " + in + out + " --temperature nan",
      "complete " + in + out + " --keep 8",
      "complete " + in + out + " --threads -1",
      "complete " + in + out + " --unknown",
      "complete " + in + " more" + out,
      "dance " + in,
      "complete " + in + out + " --cuda",
  };
  for (const std::string &arguments : list) {
    const Result result = igpt_c(arguments);
    EXPECT_EQ(result.status, 1) << arguments << ": " << result.text;
    EXPECT_EQ(result.text.rfind("igpt-c: ", 0), 0u) << result.text;
    EXPECT_EQ(std::count(result.text.begin(), result.text.end(), '\n'), 1) << result.text;
    EXPECT_FALSE(fs::exists(folder / "out.png")) << arguments;
  }
  EXPECT_EQ(run(std::string(IGPT_PROGRAM) + " --help").status, 0);
}
